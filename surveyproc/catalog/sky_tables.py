"""Find out how the positions of a catalog are stored, whoever wrote it."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from surveyproc.catalog.hats import HatsCatalog, Partition, is_hats, open_hats
from surveyproc.catalog.hats.layout import STANDARD_LEAF
from surveyproc.catalog.sky_reading import Leaf, SkyTable, schema_of
from surveyproc.catalog.storage import list_parquet, locate
from surveyproc.errors import InputError


def catalog_table(uri: str, leaf: str = STANDARD_LEAF) -> SkyTable:
    """Open a catalog for searches on the sky; only small files are read.

    Parameters
    ----------
    uri : str
        A HATS catalog or collection of any origin, a folder of Parquet files with columns ``ra`` and ``dec`` (in
        capitals too), or one such file.
    leaf : str
        Path of a leaf of a HATS catalog, where it is not that of the standard; see `open_hats`.

    Raises
    ------
    InputError
        When nothing is there, or it has no positions.
    """
    return _hats_table(open_hats(uri, leaf)) if is_hats(uri) else _flat_table(uri)


def _hats_table(catalog: HatsCatalog) -> SkyTable:
    names = catalog.position_columns
    if names is None:
        raise InputError(
            f"a HATS catalog of type {catalog.kind!r} without positions",
            where=catalog.uri,
            fix="give the object or source catalog that it belongs to",
        )
    healpix, order = catalog.healpix_column or (None, 29)

    def files(leaf: Leaf) -> Sequence[str]:
        found = catalog.files(Partition(leaf.order or 0, leaf.pixel))
        return [catalog.storage.path(name) for name in found]

    return SkyTable(
        catalog.uri,
        catalog.storage.fs,
        [Leaf("", p.order, p.pixel) for p in catalog.partitions],
        *names,
        healpix,
        order,
        catalog.default_columns if catalog.properties.get("hats_cols_default") else None,
        catalog.schema,
        files,
    )


def _flat_table(uri: str) -> SkyTable:
    location = locate(uri)
    leaves = [Leaf(location.path(name)) for name in list_parquet(location)]
    table = SkyTable(str(uri), location.filesystem, leaves)
    names = _position_columns(schema_of(table))
    return SkyTable(str(uri), location.filesystem, leaves, *names)


def _position_columns(schema: pa.Schema) -> tuple[str, str]:
    """Names of the position columns as they are spelled; ``ra`` and ``dec`` where there are none."""
    spelled = {name.lower(): name for name in reversed(schema.names)}
    return spelled.get("ra", "ra"), spelled.get("dec", "dec")
