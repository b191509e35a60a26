"""Tables of objects: ids stay exact, and what cannot be right is refused in words."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import MaskedColumn, Table

from surveyproc.errors import InputError, UsageError
from surveyproc.ingest.table import read_objects

EXTREME = [-1, -(2**63), 2**53 + 1, 2**63 - 1]


def csv(tmp_path, text, name="t.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def ids(path, column="id"):
    return read_objects(path, column, None, None).columns["object_id"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz", "parquet", "fits"])
def test_integers_of_64_bits_are_exact_in_every_format(tmp_path, kind):
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"id": EXTREME}), path)
    elif kind == "fits":
        Table({"id": np.array(EXTREME, dtype=">i8")}).write(path)
    else:
        text = "\n".join(
            ["id" + ("\tx" if kind == "tsv" else ",x")]
            + [f"{i}\t1" if kind == "tsv" else f"{i},1" for i in EXTREME]
        )
        path.write_bytes(gzip.compress(text.encode()) if kind == "csv.gz" else text.encode())
    found = ids(path)
    assert found.type == pa.int64()
    assert found.to_pylist() == EXTREME


@pytest.mark.parametrize(
    "values", [["J1", "2"], ["007", "12"], ["18446744073709551615", "1"], ["+5", "6"], ["NA", "nan"]]
)
def test_anything_but_plain_integers_stays_text_to_the_letter(tmp_path, values):
    found = ids(csv(tmp_path, "id\n" + "\n".join(values)))
    assert found.type == pa.string()
    assert found.to_pylist() == values


def test_text_ids_of_fits_and_parquet_bytes_are_decoded(tmp_path):
    Table({"id": np.array([b"J1 ", b"J22"])}).write(tmp_path / "t.fits")
    assert ids(tmp_path / "t.fits").to_pylist() == ["J1", "J22"]
    pq.write_table(pa.table({"id": pa.array([b"J1", b"J22"], pa.binary())}), tmp_path / "t.parquet")
    assert ids(tmp_path / "t.parquet").to_pylist() == ["J1", "J22"]


def test_missing_ids_are_null_and_the_others_stay_integers(tmp_path):
    assert ids(csv(tmp_path, "id,x\n5,1\n,2\n -7 ,3\n")).to_pylist() == [5, None, -7]
    Table({"id": MaskedColumn([1, 2], mask=[False, True])}).write(tmp_path / "t.fits")
    assert ids(tmp_path / "t.fits").to_pylist() == [1, None]


def test_positions_are_degrees_with_null_for_unknown(tmp_path):
    path = csv(tmp_path, "id,RA,DEC,z\n1,10.5,-3,0.1\n2,,nan,\n")
    found = read_objects(path, "id", "RA", "DEC", ["z"]).columns
    assert found.column_names == ["object_id", "ra", "dec", "z"]
    assert found.drop_columns("object_id").to_pylist() == [
        {"ra": 10.5, "dec": -3.0, "z": 0.1},
        {"ra": None, "dec": None, "z": None},
    ]


def test_a_csv_row_with_a_wrong_number_of_fields_is_set_aside(tmp_path):
    found = read_objects(csv(tmp_path, "id,x\n1,1\n2,1,9\n3,1\n"), "id", None, None)
    assert found.columns["object_id"].to_pylist() == [1, 3]
    assert found.malformed == [(2, "2,1,9")]


def refused(error, path, *words, id_column="id", ra=None, dec=None, carry=()):
    with pytest.raises(error) as caught:
        read_objects(path, id_column, ra, dec, carry)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert caught.value.fix


def test_a_missing_column_is_answered_with_the_nearest(tmp_path):
    path = csv(tmp_path, "GalaxyID,x\n1,2\n")
    refused(
        InputError,
        path,
        "no column 'galaxyid'",
        "Did you mean 'GalaxyID'?",
        "columns: GalaxyID, x",
        id_column="galaxyid",
    )
    refused(InputError, csv(tmp_path, "id,id\n1,2\n"), "column 'id' is there 2 times")


def test_spoilt_ids_are_refused(tmp_path):
    refused(InputError, csv(tmp_path, "id\nb'J1'\nJ2\n"), "printed bytes, such as b'J1'", "decode")
    refused(InputError, csv(tmp_path, "id\n1.0\n2\n"), "floating point", "such as 1.0")
    refused(InputError, csv(tmp_path, "id\n5.87e+17\n"), "floating point", "5.87e+17")
    pq.write_table(pa.table({"id": [1.0]}), tmp_path / "t.parquet")
    refused(InputError, tmp_path / "t.parquet", "floating point", "2^53")
    pq.write_table(pa.table({"id": pa.array([2**64 - 1], pa.uint64())}), tmp_path / "t.parquet")
    refused(InputError, tmp_path / "t.parquet", "does not fit 64 bits")


def test_positions_that_are_not_degrees_are_refused(tmp_path):
    path = csv(tmp_path, "id,ra,dec\n1,10:20:30,-5:06:07\n")
    refused(InputError, path, "such as '10:20:30'; degrees are needed", ra="ra", dec="dec")
    refused(InputError, csv(tmp_path, "id,ra,dec\n1,10h,5d\n"), "such as '10h'", ra="ra", dec="dec")
    refused(UsageError, csv(tmp_path, "id,ra\n1,1\n"), "--ra and --dec go together", ra="ra")


def test_reserved_names_cannot_be_carried(tmp_path):
    refused(UsageError, csv(tmp_path, "id,image\n1,2\n"), "'image' cannot be carried", carry=["image"])


def test_tables_that_are_missing_empty_or_something_else_are_refused(tmp_path):
    refused(InputError, tmp_path / "none.csv", "not there")
    refused(InputError, csv(tmp_path, ""), "cannot be read")
    refused(InputError, csv(tmp_path, "id,x\n"), "no rows")
    refused(InputError, csv(tmp_path, "id\n1\n", "t.xlsx"), "what kind of table")
    refused(InputError, csv(tmp_path, "no", "t.parquet"), "cannot be read")
    refused(InputError, csv(tmp_path, "no", "t.fits"), "cannot be read")
