"""Galaxy Zoo decision trees and what volunteers said."""

from surveyproc.votes.tree import Question, VoteSchema, load_schema, shipped_schemas

__all__ = ["Question", "VoteSchema", "load_schema", "shipped_schemas"]
