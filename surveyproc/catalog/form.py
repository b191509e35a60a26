"""How the columns of a catalog's files become the standard ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from surveyproc.catalog.adapters import Adapter, Given


@dataclass(frozen=True)
class Form:
    """What is read as which column; small and picklable, so that workers need not look again.

    Attributes
    ----------
    adapter : Adapter or None
        Of the pixels; None where they are in the standard form.
    names : tuple of (str, str)
        Standard names, and the columns of the files that they stand for.
    numbered : bool
        Ids are the numbers of the rows; the files need have none.
    """

    adapter: Adapter | None = None
    names: tuple[tuple[str, str], ...] = ()
    numbered: bool = False

    @classmethod
    def of(cls, adapter: Adapter | None, given: Given | None) -> Form:
        """Join what the file and what the user said."""
        if given is None:
            return cls(adapter)
        pairs = (("object_id", given.id), ("ra", given.ra), ("dec", given.dec))
        names = tuple((standard, stored) for standard, stored in pairs if stored is not None)
        return cls(adapter, names, given.number_rows)

    def stored_name(self, name: str) -> str:
        """Column of the files that is read as ``name``."""
        return dict(self.names).get(name, name)

    def makes(self, name: str) -> bool:
        """Whether the adapter makes a column."""
        return self.adapter is not None and (
            name == "image" or name in [field.name for field in self.adapter.made]
        )

    def paths(self, columns: Sequence[str]) -> list[str]:
        """Parquet columns to read for some standard columns, each once."""
        found: list[str] = []
        for name in columns:
            found += (
                self.adapter.paths(name) if self.adapter and self.makes(name) else [self.stored_name(name)]
            )
        return list(dict.fromkeys(found))

    def column(self, name: str, batch: pa.RecordBatch) -> pa.Array:
        """Make one standard column of what was read."""
        if self.adapter is not None and self.makes(name):
            return self.adapter.convert(name, batch.column(self.adapter.column))
        return batch.column(self.stored_name(name))

    def schema(self, stored: pa.Schema) -> pa.Schema:
        """Columns as they are read, from those of the files."""
        back = {column: name for name, column in self.names}
        fields = [pa.field("object_id", pa.int64())] if self.numbered else []
        taken = {*(name for name, _ in self.names), *(["object_id"] if self.numbered else [])}
        for field in stored:
            if self.adapter is not None and field.name == self.adapter.column:
                fields.append(self.adapter.image)
            elif field.name in back:
                fields.append(field.with_name(back[field.name]))
            elif field.name not in taken:
                fields.append(field)
        if self.adapter is not None:
            fields += [field for field in self.adapter.made if field.name not in stored.names]
        return pa.schema(fields)
