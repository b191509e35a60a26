"""Quantile bins of a numeric column that goes with the galaxies of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from surveyproc.catalog import open_catalog, read_batches
from surveyproc.errors import InputError, UsageError, did_you_mean
from surveyproc.runs.run import Run
from surveyproc.votes.label_file import ID_COLUMNS

BINS = 5
FRIENDLY = "morphology"
ALIASES = {
    "magnitude": (
        "magnitude",
        "mag",
        "mag_r",
        "r_mag",
        "petromag_r",
        "modelmag_r",
        "mag_auto",
        "mag_i",
        "mag_g",
    ),
    "size": (
        "size",
        "petror50_r",
        "petrorad_r",
        "petror90_r",
        "half_light_radius",
        "radius",
        "r50",
        "shape_r",
    ),
    "redshift": ("redshift", "z", "z_spec", "zspec", "specz", "photo_z", "z_phot", "zphot"),
}

Place = tuple[str, list[str], Callable[[str], pa.Table]]


@dataclass(frozen=True)
class Groups:
    """``bins``: lowest and highest value and rows of each; ``without``: galaxies that have no value."""

    bins: list[tuple[float, float, np.ndarray]]
    without: int


def group_rows(
    run: Run, ids: list[str], by: str, labels_path: str | None = None, id_column: str | None = None
) -> tuple[str, str, Groups]:
    """Sort galaxies into bins of nearly equal numbers.

    Parameters
    ----------
    ids : list of str
        Of the N galaxies.
    by : str
        Column, or ``magnitude``, ``size``, ``redshift`` for the first known name of one.
    labels_path, id_column : str, optional
        A label file to look into last.

    Returns
    -------
    column, where : str
        What was found, in which of ``run``, ``catalog``, ``labels``.
    groups : Groups
        Rows among the ids.

    Raises
    ------
    UsageError
        When there is no such column.
    InputError
        When it is not numeric, or no galaxy has a value.
    """
    wanted = ALIASES.get(by, (by,))
    seen: list[str] = []
    for where, names, read in _places(run, labels_path, id_column):
        seen += names
        lower = {n.lower(): n for n in reversed(names)}
        column = by if by in names else next((lower[w] for w in wanted if w.lower() in lower), None)
        if column is not None:
            table = read(column)
            return column, where, _bins(_values(table, column, ids), column)
    raise UsageError(
        f"no column {by!r} goes with these galaxies.{did_you_mean(by, seen)}",
        where="--by",
        fix=f"name a numeric column of the run, its catalog or the labels: {', '.join(sorted(set(seen))[:12])}, ...",
    )


def _places(run: Run, labels_path: str | None, id_column: str | None) -> Iterator[Place]:
    names = run.dataset(FRIENDLY).schema.names
    yield "run", names, lambda column: run.table(FRIENDLY, ["object_id", column])
    try:
        catalog = open_catalog(run.record["config"]["input"])
    except InputError:
        catalog = None  # it may have been moved; then the column is not found, and that is said
    if catalog is not None:
        kept = [n for n in catalog.schema.names if n != "image"]
        yield (
            "catalog",
            kept,
            lambda column: pa.Table.from_batches(
                batch
                for file in catalog.files
                for batch in read_batches(
                    catalog.uri,
                    file.path,
                    range(len(file.row_groups)),
                    65536,
                    ["object_id", column],
                    form=catalog.form,
                )
            ),
        )
    if labels_path is not None:
        table = (
            pq.read_table(labels_path)
            if Path(labels_path).suffix.lower() in (".parquet", ".pq")
            else pa_csv.read_csv(labels_path)
        )
        key = id_column or next((c for c in ID_COLUMNS if c in table.column_names), None)
        if key is not None:
            yield (
                "labels",
                table.column_names,
                lambda column: pa.table({"object_id": table[key], column: table[column]}),
            )


def _values(table: pa.Table, column: str, ids: list[str]) -> np.ndarray:
    try:
        values = table[column].cast(pa.float64()).to_numpy().astype(np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"column {column} is not numeric", where="--by") from error
    row_of = {str(i): row for row, i in enumerate(table["object_id"].to_pylist())}
    rows = np.array([row_of.get(i, -1) for i in ids])
    return np.where(rows >= 0, values[rows], np.nan)


def _bins(values: np.ndarray, column: str) -> Groups:
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        raise InputError(f"no galaxy of the split has a finite {column}", where="--by")
    edges = np.unique(np.quantile(values[known], np.linspace(0, 1, BINS + 1)))
    number = np.clip(np.searchsorted(edges, values[known], side="right") - 1, 0, max(len(edges) - 2, 0))
    bins = [
        (float(values[rows].min()), float(values[rows].max()), rows)
        for rows in (known[number == b] for b in np.unique(number))
    ]
    return Groups(bins, len(values) - len(known))
