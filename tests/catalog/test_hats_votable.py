"""Units and UCDs in the footer: what astropy reads of them, and that the words are those of the standards."""

from __future__ import annotations

import io
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.io.votable import parse, validate
from astropy.io.votable.ucd import parse_ucd
from astropy.table import Table
from toys import toy_catalog

from surveyproc.columns import KNOWN, attributes, described, known
from surveyproc.inference import products
from surveyproc.voparquet import CONTENT_KEY, VERSION_KEY, with_votable

SCHEMA = pa.schema(
    [
        known("object_id", pa.int64()),
        pa.field("ra", pa.float64()),
        pa.field("dec", pa.float64(), metadata={"description": "mine", "other": "kept"}),
        described("flux", pa.float32(), "flux & <error>", "nJy", "phot.flux"),
        pa.field("embedding", pa.list_(pa.float16(), 3)),
        pa.field("name", pa.string()),
        pa.field("good", pa.bool_()),
    ]
)
ROWS = [[5, -7], [1.0, 2.0], [3.0, 4.0], [0.5, None], [[1, 2, 3], [4, 5, 6]], ["ä" * 70, "b"], [True, False]]


def test_astropy_reads_units_ucds_and_descriptions(tmp_path):
    schema = with_votable(SCHEMA, "galaxies", "what they are")
    arrays = [pa.array(values, field.type) for values, field in zip(ROWS, schema)]
    pq.write_table(pa.table(arrays, schema=schema), tmp_path / "t.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*Using longest string")  # of astropy's Parquet reader
        table = Table.read(tmp_path / "t.parquet", format="parquet.votable")
    assert table["object_id"].tolist() == [5, -7]
    assert (table["ra"].unit, table["ra"].meta["ucd"]) == (u.deg, "pos.eq.ra;meta.main")
    assert (table["flux"].unit, table["flux"].meta["ucd"]) == (u.nJy, "phot.flux")
    assert table["flux"].description == "flux & <error>"
    assert table["dec"].description == "mine"
    assert table["name"].tolist() == ROWS[5]
    assert table["embedding"].shape == (2, 3)
    stored = pq.read_schema(tmp_path / "t.parquet")
    assert stored.metadata[VERSION_KEY] == b"1.0"
    assert stored.field("dec").metadata[b"other"] == b"kept"
    assert attributes(stored.field("dec")) == {
        "description": "mine",
        "unit": "deg",
        "ucd": "pos.eq.dec;meta.main",
    }


def test_the_document_is_a_valid_votable_with_a_field_for_each_column():
    schema = with_votable(SCHEMA.append(pa.field("odd", pa.struct([("x", pa.int8())]))), "galaxies")
    document = schema.metadata[CONTENT_KEY]
    assert validate(io.BytesIO(document), output=None)
    (table,) = parse(io.BytesIO(document)).iter_tables()
    assert [field.name for field in table.fields] == schema.names
    kinds = {field.name: (field.datatype, field.arraysize) for field in table.fields}
    assert kinds["object_id"] == ("long", None)
    assert kinds["embedding"] == ("float", "3")
    assert kinds["name"] == ("unicodeChar", "64*")
    assert kinds["odd"] == ("char", "*")
    assert with_votable(schema, "galaxies") == schema


def test_cutout_catalogs_say_it_too(tmp_path):
    catalog = toy_catalog(tmp_path / "a.cat", rows=20, positions=True)
    (file,) = catalog.rglob("*.parquet")
    document = pq.read_metadata(file).metadata[CONTENT_KEY]
    (table,) = parse(io.BytesIO(document)).iter_tables()
    fields = {field.name: field for field in table.fields}
    assert (fields["ra"].unit, fields["ra"].ucd) == (u.deg, "pos.eq.ra;meta.main")
    assert fields["object_id"].ucd == "meta.id;meta.main"


@pytest.mark.parametrize("name", KNOWN)
def test_known_columns_speak_the_vocabularies(name):
    _, unit, ucd = KNOWN[name]
    assert parse_ucd(ucd, check_controlled_vocabulary=True)
    u.Unit(unit, format="vounit")


def test_the_columns_of_the_tables_speak_the_vocabulary():
    for ucd in (
        f"{products.PROBABILITY};stat.min",
        f"{products.PROBABILITY};stat.max",
        "stat.probability",
        "stat.value",
        "stat.percentile",
        "stat.param;src.morph",
        "src.morph.param",
    ):
        assert parse_ucd(ucd, check_controlled_vocabulary=True)
