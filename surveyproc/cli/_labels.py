"""The flags that say where the labels are and what they hold, for the verbs that read them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from surveyproc.votes import VoteSchema
    from surveyproc.votes.labels import Labels


def add_label_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--labels``, ``--id``, ``--schema`` and ``--values``."""
    parser.add_argument("--labels", metavar="L", help="CSV or Parquet of votes or vote fractions")
    parser.add_argument(
        "--id", metavar="COL", help="id column of the labels (default object_id, GalaxyID, id_str)"
    )
    parser.add_argument("--schema", default="galaxy-challenge", help="VoteSchema name or YAML file")
    parser.add_argument(
        "--values",
        choices=["joint", "fractions", "counts"],
        help="what the labels hold: joint (cumulative) fractions, fractions of those asked, or counts of "
        "votes (default: what the schema says)",
    )


def read_labels_of(args: argparse.Namespace, say: Callable[[str], None]) -> tuple[VoteSchema, Labels]:
    """Load the VoteSchema and the labels that the flags name; ``say`` is told what was read and left out."""
    from surveyproc.votes import load_schema
    from surveyproc.votes.labels import read_labels

    schema = load_schema(args.schema)
    return schema, read_labels(args.labels, schema, args.id, args.values, say)
