"""Tables on the sky: every row in its pixel, and a HATS catalog that LSDB reads."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drive import run_here
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import toy_bundle, toy_catalog

from surveyproc.catalog.hats import choose_pixels
from surveyproc.runs import merge, open_run

ORDER = 3


@given(
    st.dictionaries(st.integers(0, 12 * 4**ORDER - 1), st.integers(1, 100), max_size=40), st.integers(1, 300)
)
@settings(deadline=None)
def test_chosen_pixels_cover_what_is_occupied_without_overlap(occupied, most):
    histogram = np.zeros(12 * 4**ORDER, dtype=np.int64)
    for pixel, rows in occupied.items():
        histogram[pixel] = rows
    chosen = list(choose_pixels(histogram, ORDER, most))
    covered = np.zeros_like(histogram)
    for order, pixel in chosen:
        span = 4 ** (ORDER - order)
        inside = histogram[pixel * span : (pixel + 1) * span]
        covered[pixel * span : (pixel + 1) * span] += 1
        assert inside.sum() > 0
        assert inside.sum() <= most or order == ORDER
        if order > 0:
            parent = pixel // 4 * 4 * span
            assert histogram[parent : parent + 4 * span].sum() > most, "a coarser pixel would have held it"
    assert covered.max(initial=0) <= 1
    assert (covered[histogram > 0] == 1).all()
    assert chosen == sorted(chosen)


@pytest.fixture(scope="module")
def sky_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sky")
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(0, 360, 300), np.degrees(np.arcsin(rng.uniform(-1, 1, 300)))
    ra[:150], dec[:150] = rng.uniform(10, 14, 150), rng.uniform(20, 24, 150)
    ra[0], dec[0], dec[1], dec[2] = 0.0, 0.0, 90.0, -90.0
    ids = list(range(300))
    ids[299] = 5
    catalog = toy_catalog(folder / "in.cat", rows=300, positions=(ra, dec), ids=ids)
    patch = pytest.MonkeyPatch()
    patch.setattr(merge, "TABLE_BYTES", 20_000)
    run_here(
        catalog,
        folder / "out.run",
        toy_bundle(folder / "toy"),
        "engine.shard_rows=40",
        "engine.batch_size=32",
    )
    patch.undo()
    return folder / "out.run", ra, dec


def test_leaves_of_several_orders_hold_each_row_once(sky_run):
    run, _, _ = sky_run
    entry = open_run(str(run)).manifest["tables"]["morphology"]
    assert entry["layout"] == "hats"
    assert len({f["pixel"][0] for f in entry["files"]}) > 1
    ids = np.concatenate([pq.read_table(run / f["path"])["object_id"].to_numpy() for f in entry["files"]])
    assert sorted(ids) == list(range(299))


def test_the_healpix_column_is_that_of_the_position(sky_run):
    from cdshealpix.nested import lonlat_to_healpix

    run, _, _ = sky_run
    import astropy.units as u
    from astropy.coordinates import Latitude, Longitude

    table = open_run(str(run)).table("embeddings")
    expected = lonlat_to_healpix(
        Longitude(table["ra"].to_numpy(), u.deg), Latitude(table["dec"].to_numpy(), u.deg), 29
    )
    assert (table["_healpix_29"].to_numpy() == expected.astype(np.int64)).all()


@pytest.mark.parametrize("table", ["morphology", "embeddings"])
def test_lsdb_opens_counts_and_cuts_a_cone(sky_run, table):
    lsdb = pytest.importorskip("lsdb")
    run, ra, dec = sky_run
    catalog = lsdb.open_catalog(str(run / table), columns=["object_id", "ra", "dec"])
    assert len(catalog) == 299
    everything = catalog.compute()
    assert len(everything) == 299

    cone = catalog.cone_search(ra=12.0, dec=22.0, radius_arcsec=3600).compute()
    a, d = np.radians(ra[:299]), np.radians(dec[:299])
    a0, d0 = np.radians(12.0), np.radians(22.0)
    separation = 2 * np.arcsin(
        np.sqrt(np.sin((d - d0) / 2) ** 2 + np.cos(d) * np.cos(d0) * np.sin((a - a0) / 2) ** 2)
    )
    inside = np.flatnonzero(np.degrees(separation) < 1.0)
    assert 5 < len(inside) < 150
    assert sorted(cone["object_id"]) == inside.tolist()


def test_tables_carry_units_and_no_tensor_extension(sky_run):
    run, _, _ = sky_run
    opened = open_run(str(run))
    for name in opened.tables:
        for file in opened.table_files(name):
            schema = pq.read_schema(file)
            assert not any(isinstance(f.type, pa.BaseExtensionType) for f in schema)
            assert b"ARROW:extension" not in b"".join(k for f in schema for k in (f.metadata or {}))
            assert "_row" not in schema.names
    schema = pq.read_schema(opened.table_files("embeddings")[0])
    assert pa.types.is_fixed_size_list(schema.field("embedding").type)
    assert schema.field("embedding").type.value_type == pa.float16()
    assert schema.field("ra").metadata[b"unit"] == b"deg"
    morphology = pq.read_schema(opened.table_files("morphology")[0])
    assert all(f.metadata and f.metadata[b"description"] for f in morphology if f.name.endswith("_fraction"))
    assert morphology.names[:4] == ["object_id", "ra", "dec", "_healpix_29"]
