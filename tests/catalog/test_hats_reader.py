"""Foreign HATS catalogs: every row and column that lsdb reads, in its order, odd layouts included."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from surveyproc.catalog import open_catalog
from surveyproc.catalog.hats import Partition, is_hats, open_hats
from surveyproc.catalog.hats.properties import format_properties, parse_properties, split_pairs
from surveyproc.errors import InputError

CUSTOM_LEAF = "parquet/{order}_{pixel}.parquet"
CATALOGS = [
    "small_sky",
    "small_sky_healpix13/small_sky_healpix13",
    "small_sky_healpix13/small_sky_healpix13_1deg",
    "small_sky_healpix13/small_sky_healpix13_2deg",
    "small_sky_left_xmatch",
    "small_sky_npix_alt_suffix",
    "small_sky_npix_as_dir",
    "small_sky_order1_collection/small_sky_order1",
    "small_sky_order1_collection/small_sky_order1_margin_1deg",
    "small_sky_order1_collection/small_sky_order1_margin_2deg",
    "small_sky_order1_custom_tree",
    "small_sky_order1_default_columns",
    "small_sky_order1_nested_sources/catalog",
    "small_sky_order1_nested_sources/small_sky_order1_nested_sources_margin",
    "small_sky_order1_no_pandas_meta",
    "small_sky_order1_source_collection/small_sky_order1_source",
    "small_sky_order1_source_collection/small_sky_order1_source_margin",
    "small_sky_order3_source",
    "small_sky_order3_source_margin",
    "small_sky_source",
    "small_sky_source_margin",
    "small_sky_to_o1source",
    "small_sky_xmatch",
    "small_sky_xmatch_margin",
    "square_map",
]
INDEXES = {
    "small_sky_healpix13": ["id"],
    "small_sky_order1_collection": ["id"],
    "small_sky_order1_nested_sources": ["id", "sources.source_id"],
    "small_sky_order1_source_collection": ["object_id", "band"],
}


@pytest.fixture(scope="module")
def real(shared_data):
    return shared_data / "hats" / "lsdb"


@pytest.fixture(scope="module")
def lsdb():
    module = pytest.importorskip("lsdb")
    import dask

    with dask.config.set(scheduler="synchronous"):
        yield module


def opened(path):
    return open_hats(str(path), CUSTOM_LEAF) if "custom" in path.name else open_hats(str(path))


def rows_of_lsdb(module, path, **options):
    """What lsdb reads, with its index as a column, as Arrow."""
    if "custom" in path.name:
        options["path_generator"] = lambda base, pixel, *_: (
            base / CUSTOM_LEAF.format(order=pixel.order, pixel=pixel.pixel)
        )
    frame = module.read_hats(path, **options).compute(progress_bar=False)
    if frame.index.name is not None:
        frame = frame.reset_index()
    return {name: pa.chunked_array(pa.array(frame[name].array)).combine_chunks() for name in frame.columns}


def columns_of(rows):
    """A nested cell, which lsdb gives as a list of rows, as a dict of columns."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_no_catalog_is_left_out(real):
    found = {str(p.parent.relative_to(real)) for p in real.rglob("hats.properties")}
    indexes = {path for path in found if open_hats(str(real / path)).kind == "index"}
    assert found - indexes == set(CATALOGS)
    assert len(indexes) == sum(len(names) for names in INDEXES.values())


@pytest.mark.parametrize("name", CATALOGS)
def test_rows_are_those_that_lsdb_reads(real, lsdb, name):
    catalog = opened(real / name)
    expected = rows_of_lsdb(lsdb, real / name, columns="all")
    table = catalog.table(catalog.schema.names)
    assert sorted(table.column_names) == sorted(expected)
    for column, values in expected.items():
        ours = table[column].combine_chunks()
        if pa.types.is_struct(ours.type):
            assert ours.to_pylist() == [columns_of(row) for row in values.to_pylist()], column
        else:
            assert ours.to_pylist() == values.cast(ours.type).to_pylist(), column
    assert table.num_rows == catalog.rows == catalog.count_rows() > 0
    assert sum(catalog.count_rows(p) for p in catalog.partitions) == catalog.rows


def test_default_columns_are_those_that_lsdb_takes(real, lsdb):
    path = real / "small_sky_order1_default_columns"
    catalog = open_hats(str(path))
    assert set(catalog.default_columns) == set(rows_of_lsdb(lsdb, path)) == {"_healpix_29", "id", "ra", "dec"}
    assert set(catalog.schema.names) > set(catalog.default_columns)


@pytest.mark.parametrize("name", INDEXES)
def test_collections_name_their_primary_margins_and_indexes(real, name):
    catalog = open_hats(str(real / name))
    assert catalog.kind in ("object", "source")
    assert catalog.uri == str(real / name)
    assert list(catalog.indexes) == INDEXES[name]
    for uri in catalog.indexes.values():
        index = open_hats(uri)
        assert (index.kind, index.partitions) == ("index", ())
        assert index.table().num_rows == index.rows == index.count_rows()
    for uri in catalog.margins.values():
        margin = open_hats(uri)
        assert margin.kind == "margin"
        assert float(margin.properties["hats_margin_threshold"]) > 0
    assert catalog.default_margin in catalog.margins
    assert open_hats(f"{real / name}/collection.properties").partitions == catalog.partitions


def test_the_files_of_a_partition_and_its_pushdown(real):
    catalog = open_hats(str(real / "small_sky_order1_source_collection"))
    assert catalog.position_columns == ("source_ra", "source_dec")
    partition = Partition(1, 47)
    (file,) = catalog.uris(partition)
    low, high = partition.range29
    name, order = catalog.healpix_column
    assert order == 29
    table = catalog.table(["source_id", name], [partition])
    assert table.equals(pq.read_table(file, columns=["source_id", name], partitioning=None))
    assert low <= pc.min(table[name]).as_py()
    assert pc.max(table[name]).as_py() < high
    few = catalog.table(["source_id"], filter=pc.field("mag") > 18)
    everything = catalog.table(["source_id", "mag"])
    assert 0 < few.num_rows < everything.num_rows
    assert few["source_id"].to_pylist() == everything.filter(pc.field("mag") > 18)["source_id"].to_pylist()
    assert open_hats(str(real / "small_sky_healpix13")).healpix_column == ("healpix13", 13)
    folder = open_hats(str(real / "small_sky_npix_as_dir"))
    assert folder.files() == ["dataset/Norder=0/Dir=0/Npix=11/part0.parquet"]


def test_partitions_are_listed_where_their_list_is_missing(real, tmp_path):
    for name in ("small_sky_source", "small_sky_npix_as_dir"):
        catalog = shutil.copytree(real / name, tmp_path / name)
        whole = open_hats(str(catalog))
        for file in (
            "partition_info.csv",
            "hats.properties",
            "dataset/_metadata",
            "dataset/_common_metadata",
        ):
            (catalog / file).unlink()
        bare = open_hats(str(catalog))
        assert bare.partitions == whole.partitions
        assert bare.table(whole.schema.names).equals(whole.table(whole.schema.names))


def test_foreign_catalogs_open_from_a_store(real):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(real / "small_sky_order1_collection"), "/hats/collection", recursive=True)
    catalog = open_hats("memory://hats/collection")
    assert catalog.table().num_rows == 131
    assert catalog.uris(catalog.partitions[0])[0].startswith("memory://")
    assert open_hats(catalog.margins[catalog.default_margin]).table().num_rows == 23


def refused(call, *parts):
    with pytest.raises(InputError) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)


def test_what_cannot_be_read_is_refused_with_its_place(real, tmp_path):
    small = real / "small_sky_order1_collection" / "small_sky_order1"
    assert is_hats(str(small))
    assert is_hats(str(small.parent))
    assert not is_hats(str(tmp_path))
    refused(lambda: open_hats(str(tmp_path)), "no HATS catalog", str(tmp_path))
    refused(lambda: open_hats(str(small)).table(["r"]), "no column 'r'", "Did you mean 'ra'?")
    refused(
        lambda: open_hats(str(real / "small_sky_order1_custom_tree")).table(), "no file", "Npix=44.parquet"
    )

    broken = shutil.copytree(small, tmp_path / "broken")
    leaf = broken / open_hats(str(small)).files()[1]
    leaf.write_bytes(leaf.read_bytes()[:-20])
    refused(lambda: open_hats(str(broken)).table(), "cannot be read", leaf.name)
    leaf.unlink()
    refused(lambda: open_hats(str(broken)).count_rows(), "no file", leaf.name)
    (broken / "partition_info.csv").write_text("order,pixel\n1,44\n")
    refused(lambda: open_hats(str(broken)), "list of partitions", "partition_info.csv")
    (broken / "hats.properties").write_text("dataproduct_type=galaxies\nobs_collection=x\n")
    refused(lambda: open_hats(str(broken)), "'galaxies'", "object, source")
    (broken / "hats.properties").write_text("dataproduct_type=object\n")
    refused(lambda: open_hats(str(broken)), "'obs_collection' is missing")
    (broken / "_unfinished").write_text("")
    refused(lambda: open_hats(str(broken)), "unfinished")


@pytest.mark.parametrize("name", ["small_sky", "small_sky_order1_collection", "small_sky_npix_as_dir"])
def test_a_catalog_without_cutouts_says_what_it_is_good_for(real, name):
    refused(lambda: open_catalog(str(real / name)), "no cutout catalog", "surveyproc cone", "surveyproc sql")


def test_properties_are_parsed_as_java_does():
    text = "# c\n! c\n\nkey=value\n spaced  :  v v \nurl=s3\\://b/a\\=1\nlong=a, \\\n   b\nu=\\u00e9\nalone\nk v=w\n"
    assert parse_properties(text.encode()) == {
        "key": "value",
        "spaced": "v v",
        "url": "s3://b/a=1",
        "long": "a, b",
        "u": "é",
        "alone": "",
        "k": "v=w",
    }
    odd = {"a key=": "b\\c\nd", "x": "p=q: r", "empty": ""}
    assert parse_properties(format_properties("title", odd)) == odd
    assert split_pairs("a b, c d") == {"a": "b", "c": "d"}
