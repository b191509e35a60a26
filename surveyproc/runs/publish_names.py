"""Names of the columns in what is published: ours, or those of Zoobot's tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from surveyproc.columns import attributes, described
from surveyproc.errors import UsageError, did_you_mean

ENDINGS = {
    "_fraction_lower": "_90pc-lower",
    "_fraction_upper": "_90pc-upper",
    "_proportion_asked": "_proportion-asked",
}
ZOOBOT_ID, FEATURE = "id_str", "feat_"


@dataclass(frozen=True)
class Renamed:
    """A column to publish: its field, and how it is made of the column ``source``."""

    field: pa.Field
    source: str
    make: Callable[[pa.ChunkedArray], pa.ChunkedArray]


class Names:
    """How the columns of a table are published.

    Parameters
    ----------
    kind : str or None
        None for our names; ``zoobot`` for those of Zoobot's tables of vote fractions: ``id_str`` (text),
        ``{answer}_fraction``, ``_90pc-lower``, ``_90pc-upper``, ``{question}_proportion-asked``, ``feat_0`` to
        ``feat_{D-1}`` instead of one column ``embedding``; half precision becomes single.

    Raises
    ------
    UsageError
        For another kind.
    """

    def __init__(self, kind: str | None) -> None:
        if kind not in (None, "zoobot"):
            raise UsageError(
                f"unknown names {kind!r}.{did_you_mean(str(kind), ['zoobot'])}",
                where="--names",
                fix="leave it out for our names, or say zoobot",
            )
        self.kind = kind

    @property
    def id_column(self) -> str:
        """Name that ``object_id`` gets."""
        return ZOOBOT_ID if self.kind else "object_id"

    def columns(self, schema: pa.Schema) -> list[Renamed]:
        """Say for each column to publish what it is made of."""
        if self.kind is None:
            return [Renamed(field, field.name, _same) for field in schema]
        return [column for field in schema for column in _zoobot(field)]

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Columns as they are published."""
        return pa.schema([column.field for column in self.columns(schema)])

    def apply(self, table: pa.Table) -> pa.Table:
        """Make the published columns."""
        columns = self.columns(table.schema)
        return pa.table(
            [column.make(table[column.source]) for column in columns],
            schema=pa.schema([column.field for column in columns]),
        )


def _zoobot(field: pa.Field) -> list[Renamed]:
    said = attributes(field)
    if field.name == "object_id":
        return [Renamed(pa.field(ZOOBOT_ID, pa.string(), metadata=said), field.name, _text)]
    if field.name == "embedding" and pa.types.is_fixed_size_list(field.type):
        return [_feature(field, number) for number in range(field.type.list_size)]
    ending = next((e for e in ENDINGS if field.name.endswith(e)), None)
    name = field.name.removesuffix(ending) + ENDINGS[ending] if ending else field.name
    if pa.types.is_float16(field.type):
        return [Renamed(pa.field(name, pa.float32(), metadata=said), field.name, _single)]
    return [Renamed(pa.field(name, field.type, metadata=said), field.name, _same)]


def _feature(field: pa.Field, number: int) -> Renamed:
    def make(column: pa.ChunkedArray) -> pa.ChunkedArray:
        return _single(pc.list_element(column, number))

    feature = described(
        f"{FEATURE}{number}", pa.float32(), "feature of the encoder", ucd=attributes(field).get("ucd", "")
    )
    return Renamed(feature, field.name, make)


def _same(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())


def _single(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.float32())
