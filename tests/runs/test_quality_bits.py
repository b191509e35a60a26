"""Every bit of ``quality``, from a catalog to all that is made of it."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drive import run_here, tables_of
from toys import SPEC, toy_bundle, toy_pixels

import surveyproc
from surveyproc.catalog import CatalogWriter
from surveyproc.cli.main import main
from surveyproc.quality import Quality

ROWS = 24
BITS = [int(bit) for bit in Quality]
TABLES = ("morphology", "morphology_posterior", "embeddings")


def write(path, quality):
    """A catalog whose last row has the id of the first and whose row 3 has no signal."""
    pixels = toy_pixels(ROWS)
    pixels[3] = 7
    ids = [*range(ROWS - 1), 0]
    columns = {"object_id": pa.array(ids), "ra": pa.array(np.linspace(10, 12, ROWS))}
    columns |= {"dec": pa.array(np.linspace(0, 1, ROWS))} | ({} if quality is None else {"quality": quality})
    schema = pa.schema([(name, column.type) for name, column in columns.items()])
    with CatalogWriter(path, SPEC, schema, row_group_bytes=10 * SPEC.nbytes) as writer:
        writer.write_pixels(pixels, columns)
    return path


def test_every_bit_reaches_every_table_and_all_that_is_made_of_them(tmp_path):
    given = [BITS[row % len(BITS)] for row in range(ROWS)]
    catalog = write(tmp_path / "a.cat", pa.array(given, pa.int64()))
    run_here(catalog, tmp_path / "a.run", toy_bundle(tmp_path / "toy"), "limits.max_reject_fraction=0.2")
    tables = tables_of(tmp_path / "a.run")
    expected = {row: given[row] for row in range(ROWS - 1) if row != 3}
    assert set(expected.values()) == set(BITS)
    for name in TABLES:
        found = tables[name]
        assert dict(zip(found["object_id"].to_pylist(), found["quality"].to_pylist())) == expected, name
    rejected = {(r["object_id"], r["reason"]): r["quality"] for r in tables["rejects"].to_pylist()}
    assert rejected == {
        (3, "constant_pixels"): given[3] | Quality.MISSING_BAND,
        (0, "duplicate_id"): given[ROWS - 1],
    }

    for kind in ("hats", "parquet", "fits"):
        assert (
            main(["publish", str(tmp_path / "a.run"), "--format", kind, "--output", str(tmp_path / kind)])
            == 0
        )
    from astropy.table import Table

    published = [
        surveyproc.sql(f"SELECT object_id, quality FROM {name}", tmp_path / "a.run") for name in TABLES
    ]
    published += [pq.read_table(tmp_path / "parquet" / f"{name}.parquet") for name in TABLES]
    for table in published:
        assert dict(zip(table["object_id"].to_pylist(), table["quality"].to_pylist())) == expected
    for name in TABLES:
        table = Table.read(tmp_path / "fits" / f"{name}.fits")
        assert dict(zip(table["object_id"].tolist(), table["quality"].tolist())) == expected
    assert main(["repack", str(catalog), "--output", str(tmp_path / "b.cat")]) == 0
    again = surveyproc.sql("SELECT object_id, quality FROM catalog", tmp_path / "b.cat")
    assert dict(zip(again["object_id"].to_pylist(), again["quality"].to_pylist())) == expected


def test_a_catalog_without_quality_has_what_the_run_itself_finds(tmp_path):
    run_here(
        write(tmp_path / "a.cat", None),
        tmp_path / "a.run",
        toy_bundle(tmp_path / "toy"),
        "limits.max_reject_fraction=0.2",
    )
    tables = tables_of(tmp_path / "a.run")
    assert not any(any(tables[name]["quality"].to_pylist()) for name in TABLES)
    assert sorted(tables["rejects"]["quality"].to_pylist()) == [0, Quality.MISSING_BAND]


@pytest.mark.parametrize(
    ("quality", "said"),
    [
        (pa.array(np.linspace(0, 1, ROWS)), "column 'quality' is double"),
        (pa.array(["good"] * ROWS), "column 'quality' is string"),
        (pa.array([True] * ROWS), "column 'quality' is bool"),
        (pa.array([1 << 40] * ROWS), "quality 1099511627776 is no bit mask"),
        (pa.array([-1] * ROWS, pa.int32()), "quality -1 is no bit mask"),
    ],
)
def test_a_column_quality_that_is_no_bit_mask_is_refused(quality, said, tmp_path, capsys):
    catalog, bundle = str(write(tmp_path / "a.cat", quality)), str(toy_bundle(tmp_path / "toy"))
    for words in (
        ["run", "--input", catalog, "--bundle", bundle, "--output", str(tmp_path / "a.run"), "cluster=none"],
        ["repack", catalog, "--output", str(tmp_path / "b.cat")],
    ):
        assert main(words) == 3, words
        assert said in capsys.readouterr().err
