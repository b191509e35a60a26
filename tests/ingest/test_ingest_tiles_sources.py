"""The table of sources: every kind of file, every kind of bad row."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from surveyproc.errors import InputError, UsageError
from surveyproc.ingest.sorting import repeated_rows
from surveyproc.ingest.sources import SourceColumns, open_sources

IDS = [5, -3, 2**60, 7]


def write(path, table):
    if ".csv" in path.name:
        pacsv.write_csv(table, path)
    elif path.suffix == ".vot":
        Table(table.to_pydict()).write(path, format="votable")
    elif path.suffix == ".fits":
        columns = {
            name: np.array(table[name].to_pylist(), dtype="S20")
            if pa.types.is_string(table[name].type)
            else table[name].to_numpy()
            for name in table.column_names
        }
        Table(columns).write(path)
    else:
        pq.write_table(table, path)
    return str(path)


def read(path, rows=100, **columns):
    with open_sources(str(path), SourceColumns(**columns)) as table:
        chunks = list(table.chunks(rows))
        return table, chunks, pa.concat_tables([c.rows for c in chunks])


@pytest.mark.parametrize("name", ["s.csv", "s.parquet", "s.fits", "s.vot"])
def test_all_kinds_of_tables_give_the_same_rows(tmp_path, name):
    table = pa.table(
        {"ID": IDS, "RA": [1.5, np.nan, 3.0, 4.0], "DEC": [0.1, 0.2, -0.3, 0.4], "mag": [20.5] * 4}
    )
    path = write(tmp_path / name, table)
    opened, chunks, rows = read(path, rows=3, object_id="ID", ra="RA", dec="DEC", extra=("mag",))
    assert [c.rows.num_rows for c in chunks] == [3, 1]
    assert opened.id_type == pa.int64()
    assert opened.rows == 4
    assert rows["object_id"].to_pylist() == IDS
    assert rows["ra"].to_pylist() == [1.5, None, 3.0, 4.0]
    assert rows["dec"].to_pylist() == [0.1, 0.2, -0.3, 0.4]
    assert rows["mag"].to_pylist() == [20.5] * 4
    assert rows.column_names == ["object_id", "ra", "dec", "mag"]


@pytest.mark.parametrize("name", ["s.csv", "s.parquet", "s.fits", "s.vot"])
def test_printed_bytes_are_taken_for_what_was_meant(tmp_path, name):
    ids = ["b'0421p022-7410'", ' b"0421p022-7411" ', "plain", "007"]
    path = write(tmp_path / name, pa.table({"object_id": ids, "ra": [1.0] * 4, "dec": [1.0] * 4}))
    opened, chunks, rows = read(path)
    assert opened.id_type == pa.string()
    assert rows["object_id"].to_pylist() == ["0421p022-7410", "0421p022-7411", "plain", "007"]
    assert [c.printed for c in chunks] == [2]


def test_printed_integers_become_integers(tmp_path):
    path = write(
        tmp_path / "s.parquet", pa.table({"object_id": ["b'12'", "-9"], "ra": [1.0] * 2, "dec": [1.0] * 2})
    )
    opened, _, rows = read(path)
    assert rows["object_id"].to_pylist() == [12, -9]
    assert opened.id_type == pa.int64()


def test_one_id_of_text_in_a_late_chunk_makes_all_text(tmp_path):
    path = write(
        tmp_path / "s.csv", pa.table({"object_id": ["1", "2", "x3"], "ra": [1.0] * 3, "dec": [1.0] * 3})
    )
    _, _, rows = read(path, rows=1)
    assert rows["object_id"].to_pylist() == ["1", "2", "x3"]


def test_malformed_rows_and_empty_ids_of_a_csv_are_kept_for_the_rejects(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("object_id,ra,dec\n1,2,3\n2,3\n,4,5\n3,,5\n4,nan,5\n5,5,6,7\n")
    _, chunks, rows = read(path)
    assert rows["object_id"].to_pylist() == [1, None, 3, 4]
    assert rows["ra"].to_pylist() == [2.0, 4.0, None, None]
    assert chunks[-1].malformed == ["2,3", "5,5,6,7"]
    assert chunks[-1].rows.num_rows == 0


def test_a_gzipped_csv_and_a_tsv(tmp_path):
    (tmp_path / "s.tsv").write_text("object_id\tra\tdec\n1\t2\t3\n")
    (tmp_path / "s.csv.gz").write_bytes(gzip.compress(b"object_id,ra,dec\n1,2,3\n"))
    for name in ("s.tsv", "s.csv.gz"):
        assert read(tmp_path / name)[2].to_pylist() == [{"object_id": 1, "ra": 2.0, "dec": 3.0}]


def test_later_rows_with_an_id_are_repeated_but_one_without_position_claims_nothing(tmp_path):
    ids, ra = [1, 2, 1, 3, 3, 2, None, None], [1.0, 1.0, 1.0, np.nan, 1.0, 1.0, 1.0, 1.0]
    path = write(tmp_path / "s.parquet", pa.table({"object_id": ids, "ra": ra, "dec": [0.0] * 8}))
    with open_sources(path, SourceColumns()) as table:
        found = repeated_rows(table, 4)
    assert {k: v.tolist() for k, v in found.items()} == {0: [2], 1: [1]}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"id": [1], "RA": [1.0], "dec": [1.0]}, "no column 'object_id' in the table"),
        ({"object_id": [1], "RA": [1.0], "DEC": [1.0]}, "no column 'ra' in the table. Did you mean 'RA'?"),
        ({"object_id": [1.0], "ra": [1.0], "dec": [1.0]}, "floating point"),
        ({"object_id": ["1e18", "2"], "ra": [1.0] * 2, "dec": [1.0] * 2}, "such as 1e18"),
        ({"object_id": [1], "ra": ["10:00:00"], "dec": [1.0]}, "degrees are needed"),
        ({"object_id": pa.array([2**63], pa.uint64()), "ra": [1.0], "dec": [1.0]}, "64 bits"),
        ({"object_id": pa.array([], pa.int64()), "ra": pa.array([], pa.float64()), "dec": pa.array([], pa.float64())}, "no rows"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_meant_are_refused(tmp_path, table, says):
    path = write(tmp_path / "s.parquet", pa.table(table))
    with pytest.raises(InputError, match=says.replace("?", r"\?")):
        read(path)


def test_a_position_in_hours_in_a_csv_is_refused_with_the_value(tmp_path):
    (tmp_path / "s.csv").write_text("object_id,ra,dec\n1,10:00:00,3\n")
    with pytest.raises(InputError, match="10:00:00") as refused:
        read(tmp_path / "s.csv")
    assert "decimal degrees" in refused.value.fix


def test_an_absent_file_and_another_kind_are_refused(tmp_path):
    with pytest.raises(InputError, match="not there"):
        read(tmp_path / "s.csv")
    (tmp_path / "s.txt").write_text("x")
    with pytest.raises(InputError, match="what kind of table"):
        read(tmp_path / "s.txt")
    (tmp_path / "s.parquet").write_text("<html>")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "s.parquet")


def test_columns_of_the_catalog_cannot_be_carried():
    with pytest.raises(UsageError, match="psf_fwhm_arcsec"):
        SourceColumns(extra=("psf_fwhm_arcsec",))
