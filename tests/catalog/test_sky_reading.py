"""Rows in a region: from leaves of several orders, flat files and others' HATS, against reading everything."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from surveyproc.catalog import open_catalog
from surveyproc.catalog.hats import choose_pixels, leaf_path, metadata_files
from surveyproc.catalog.sky import healpix29, parent_pixel
from surveyproc.catalog.sky_reading import cone_search, search, targets, write_found
from surveyproc.catalog.sky_regions import Box, Cone, Moc, Polygon, separation_arcsec
from surveyproc.catalog.sky_tables import catalog_table
from surveyproc.errors import InputError, UsageError

ROWS, ORDER = 12_000, 5


def positions():
    """Thin all over the sky, dense at both poles and where RA wraps."""
    rng = np.random.default_rng(8)
    ra = rng.uniform(0, 360, ROWS)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, ROWS)))
    dec[:2000] = 90 - rng.exponential(0.5, 2000)
    dec[2000:4000] = -90 + rng.exponential(0.5, 2000)
    ra[4000:7000] = rng.normal(0, 0.7, 3000) % 360
    dec[4000:7000] = rng.normal(0, 0.7, 3000)
    ra[:3], dec[:3] = [0, 0, 359.9999999999], [90, -90, 0]
    return ra, dec


def rows_of(ra, dec):
    return pa.table(
        {
            "id": np.arange(len(ra)),
            "ra": ra,
            "dec": dec,
            "_healpix_29": healpix29(ra, dec).data,
            "mag": np.linspace(15, 25, len(ra), dtype=np.float32),
            "tags": pa.array([[i] for i in range(len(ra))]),
        }
    ).sort_by("_healpix_29")


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    """The same rows as a HATS catalog and as flat files without an index, and their positions."""
    folder = tmp_path_factory.mktemp("sky")
    ra, dec = positions()
    rows = rows_of(ra, dec)
    indices = rows["_healpix_29"].to_numpy()
    leaves = []
    histogram = np.bincount(parent_pixel(indices, ORDER), minlength=12 * 4**ORDER)
    for order, pixel in choose_pixels(histogram, ORDER, 500):
        leaf = rows.filter(pa.array(parent_pixel(indices, order) == pixel))
        path = folder / "a.hats" / leaf_path(order, pixel)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(leaf, path, row_group_size=50)
        leaves.append((order, pixel, leaf.num_rows))
    for name, data in metadata_files("a", rows.schema, leaves, {}).items():
        (folder / "a.hats" / name).write_bytes(data)
    flat = rows.drop_columns(["_healpix_29"]).take(pa.array(np.random.default_rng(2).permutation(ROWS)))
    (folder / "flat").mkdir()
    for part in range(3):
        pq.write_table(flat.slice(part * 4000, 4000), folder / "flat" / f"{part}.parquet")
    return folder, ra, dec


def ids(tables):
    return sorted(pa.concat_tables(tables)["id"].to_pylist())


def regions(ra, dec, size):
    return [
        Cone(ra, dec, size * 3600),
        Box((ra - size, ra + size), (max(-90, dec - size), min(90, dec + size))),
        Polygon(((ra, min(90, dec + size)), (ra - size, dec / 1.1), (ra + size, max(-90, dec - size)))),
        Moc(Cone(ra, dec, size * 3600).cover()),
    ]


@settings(max_examples=60, deadline=None)
@given(st.floats(-180, 180), st.floats(-89, 89), st.floats(0.001, 30), st.integers(0, 3))
@example(0.0, 89.0, 3.0, 0)
@example(0.0, 89.0, 3.0, 2)
@example(0.0, 0.0, 0.2, 1)
@example(0.0, 0.0, 0.2, 2)
@example(180.0, -89.0, 1.5, 0)
def test_a_search_returns_what_reading_everything_does(sky, ra, dec, size, kind):
    folder, all_ra, all_dec = sky
    region = regions(ra, dec, size)[kind]
    expected = np.flatnonzero(region.contains(all_ra, all_dec)).tolist()
    assert ids(search(catalog_table(str(folder / "a.hats")), region, ["id"])) == expected
    assert ids(search(catalog_table(str(folder / "flat")), region, ["id"])) == expected


def test_a_small_region_opens_few_leaves_and_few_row_groups(sky, monkeypatch):
    folder, _, _ = sky
    hats = catalog_table(str(folder / "a.hats"))
    assert len(hats.leaves) > 50
    for region in (Cone(0, 0, 600), Cone(45, 89.9, 60), Box((359.9, 0.1), (-0.1, 0.1))):
        chosen = targets(hats.leaves, region)
        assert 1 <= len(chosen) <= 4
        assert all(0 < t.high - t.low < 4 ** (29 - t.leaf.order) for t in chosen)
    groups = []
    read = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, g, **k: groups.append(g) or read(self, g, **k)
    )
    assert ids(search(hats, Cone(0, 0, 120)))
    assert len(groups) <= 6, "keys and rows of one row group in three at most"


def test_the_nearest_come_first_with_their_distance(sky):
    folder, ra, dec = sky
    found = cone_search(catalog_table(str(folder / "a.hats")), Cone(0.1, -0.1, 1200), ["id"])
    assert found.column_names == ["distance_arcsec", "id"]
    distances = found["distance_arcsec"].to_numpy()
    assert (np.diff(distances) >= 0).all()
    expected = separation_arcsec(ra, dec, 0.1, -0.1)[found["id"].to_numpy()]
    assert np.allclose(distances, expected, rtol=0, atol=1e-9)
    assert found.schema.field("distance_arcsec").metadata[b"unit"] == b"arcsec"


def test_columns_are_scalar_ones_unless_asked_for(sky):
    folder, _, _ = sky
    flat = catalog_table(str(folder / "flat"))
    cone = Cone(0, 0, 3600)
    assert cone_search(flat, cone).column_names == ["distance_arcsec", "id", "ra", "dec", "mag"]
    everything = cone_search(flat, cone, ["all"])
    assert everything["tags"].to_pylist() == [[i] for i in everything["id"].to_pylist()]
    with pytest.raises(UsageError, match="Did you mean 'mag'"):
        cone_search(flat, cone, ["id", "magg"])


def test_an_empty_answer_still_has_columns(sky):
    folder, _, _ = sky
    found = cone_search(catalog_table(str(folder / "a.hats")), Cone(200, 45, 1e-3), ["id", "mag"])
    assert found.num_rows == 0
    assert found.schema.field("mag").type == pa.float32()


@pytest.mark.parametrize(
    "name",
    [
        "small_sky_npix_as_dir",
        "small_sky_npix_alt_suffix",
        "small_sky_order1_default_columns",
        "small_sky_order1_collection",
        "small_sky_healpix13",
        "small_sky_order3_source",
        "small_sky_order1_nested_sources",
    ],
)
def test_hats_catalogs_of_others_give_the_rows_that_lsdb_gives(shared_data, name):
    lsdb = pytest.importorskip("lsdb")
    path = str(shared_data / "hats" / "lsdb" / name)
    table = catalog_table(path)
    theirs = lsdb.open_catalog(path)
    found = cone_search(table, Cone(310.0, -55.0, 30_000.0))
    expected = theirs.cone_search(ra=310.0, dec=-55.0, radius_arcsec=30_000.0).compute()
    assert len(expected) > 10
    for column in (table.ra, table.dec):
        assert sorted(found[column].to_pylist()) == sorted(expected[column].tolist())
    assert (
        {"distance_arcsec"}
        < {*found.column_names}
        <= {"distance_arcsec", *theirs.all_columns, "_healpix_29", "healpix13"}
    )
    assert cone_search(table, Cone(10.0, 80.0, 60.0)).num_rows == 0


def test_a_region_of_a_cutout_catalog_is_a_cutout_catalog(tmp_path):
    from toys import toy_catalog, toy_pixels

    ra, dec = np.linspace(10, 11, 60), np.linspace(-1, 1, 60)
    catalog = toy_catalog(tmp_path / "in.cat", rows=60, group_rows=7, positions=(ra, dec))
    table = catalog_table(str(catalog))
    path = str(tmp_path / "part.parquet")
    assert write_found(search(table, Box((10, 11), (0, 0.5)), ["all"]), table, path) == 15
    part = open_catalog(path)
    kept = (dec >= 0) & (dec <= 0.5)
    assert part.image == open_catalog(str(catalog)).image
    assert pq.read_table(path)["image"].to_pylist() == [p.tobytes() for p in toy_pixels(60)[kept]]


def test_a_store_is_asked_for_little(sky, monkeypatch):
    """``memory://`` goes the way of stores: byte ranges, no listing of leaves that are not wanted."""
    import fsspec

    from surveyproc.catalog.ranges import StoreObject

    folder, ra, dec = sky
    memory = fsspec.filesystem("memory")
    memory.put(str(folder / "a.hats") + "/", "/sky-reading/", recursive=True)
    fetched = []
    fetch = StoreObject.fetch
    monkeypatch.setattr(
        StoreObject, "fetch", lambda self, a, b: fetched.append((self.path, b - a)) or fetch(self, a, b)
    )
    cone = Cone(0.0, 0.0, 600)
    found = cone_search(catalog_table("memory://sky-reading"), cone)
    assert sorted(found["id"].to_pylist()) == np.flatnonzero(cone.contains(ra, dec)).tolist()
    assert len({path for path, _ in fetched}) <= 4
    memory.rm("/sky-reading", recursive=True)


def test_the_output_may_not_be_the_input(sky):
    folder, _, _ = sky
    path = str(folder / "flat" / "0.parquet")
    table = catalog_table(path)
    with pytest.raises(UsageError, match="overwrite"):
        write_found(search(table, Cone(0, 0, 60)), table, path)


def test_what_has_no_usable_positions_is_refused(tmp_path, shared_data):
    pq.write_table(pa.table({"RA": [1.0], "Dec": [2.0], "id": [5]}), tmp_path / "capitals.parquet")
    assert cone_search(catalog_table(str(tmp_path / "capitals.parquet")), Cone(1, 2, 1))[
        "id"
    ].to_pylist() == [5]
    for columns, word in (
        ({"x": [1.0]}, "no column 'ra' and 'dec'"),
        ({"ra": ["a"], "dec": ["b"]}, "not degrees"),
    ):
        pq.write_table(pa.table(columns), tmp_path / "bad.parquet")
        with pytest.raises(InputError, match=word):
            cone_search(catalog_table(str(tmp_path / "bad.parquet")), Cone(1, 2, 1))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="cannot be read"):
        cone_search(catalog_table(str(tmp_path / "bad.parquet")), Cone(1, 2, 1))
    with pytest.raises(InputError, match="without positions"):
        catalog_table(str(shared_data / "hats/lsdb/small_sky_order1_collection/small_sky_order1_id_index"))


def test_files_of_a_table_that_differ_are_named(tmp_path):
    pq.write_table(pa.table({"ra": [1.0], "dec": [2.0], "id": [5]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"ra": [1.0], "dec": [2.0]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match="no column 'id'") as refused:
        cone_search(catalog_table(str(tmp_path)), Cone(1, 2, 1))
    assert "b.parquet" in str(refused.value)
    assert cone_search(catalog_table(str(tmp_path)), Cone(1, 2, 1), ["dec"]).num_rows == 2
