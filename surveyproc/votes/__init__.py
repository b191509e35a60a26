"""Galaxy Zoo decision trees and what volunteers said."""

from surveyproc.votes.counts import pseudo_counts
from surveyproc.votes.files import load_schema, shipped_schemas
from surveyproc.votes.question import Question
from surveyproc.votes.tree import VoteSchema

__all__ = ["Question", "VoteSchema", "load_schema", "pseudo_counts", "shipped_schemas"]
