"""Sources to tiles against the rule written out, and partitions against what they must be."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skytiles import SCALE, SIDE, mosaic, owner_of, positions, sky, write_tile

from surveyproc.catalog.sky import healpix29, pixel_range
from surveyproc.ingest.assign import assign, coverage
from surveyproc.ingest.partitions import FINEST, Histogram, choose_partitions
from surveyproc.ingest.plan import CutPlan, cut_units, slices_of
from surveyproc.ingest.tiles import find_tiles, read_layout


def tiles_of(folder, bands="g"):
    return find_tiles(read_layout(f"{folder}/{{tile}}_{{band}}.fits", list(bands)))


def assigned(tiles, ra, dec):
    found = assign(ra, dec, healpix29(ra, dec).data, tiles, coverage(tiles))
    names = [None if n < 0 else tiles[n].name for n in found.tile]
    return names, found.claims.tolist()


def test_every_source_goes_to_the_tile_farthest_from_whose_edge_it_is(tmp_path):
    wcs = mosaic(tmp_path, 3, 2, bands="g")
    ra, dec = positions(800, 3, 2, beyond=0.003)
    names, claims = assigned(tiles_of(tmp_path), ra, dec)
    expected = [owner_of(wcs, a, d) for a, d in zip(ra, dec)]
    assert all(name in owners for name, (owners, _) in zip(names, expected))
    assert sum(len(owners) == 1 for owners, _ in expected) > 0.25 * len(expected)
    assert claims == [count for _, count in expected]
    assert None in names
    assert max(claims) == 4


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 0.0), (359.999, 30.0), (10.0, 89.99), (200.0, -90.0)])
def test_the_border_of_the_sky_and_its_poles(tmp_path, ra, dec):
    wcs = {"a": write_tile(tmp_path, "a", ra, dec, "g"), "b": write_tile(tmp_path, "b", ra + 0.003, dec, "g")}
    rng = np.random.default_rng(2)
    x, y = rng.uniform(-20, SIDE + 20, (2, 300))
    ra, dec = wcs["a"].wcs_pix2world(x, y, 0)
    names, claims = assigned(tiles_of(tmp_path), ra, dec)
    expected = [owner_of(wcs, a, d) for a, d in zip(ra, dec)]
    assert all(name in owners for name, (owners, _) in zip(names, expected))
    assert sum(len(owners) == 1 for owners, _ in expected) > 0.25 * len(expected)
    assert claims == [count for _, count in expected]


def test_negative_right_ascension_and_the_antipode(tmp_path):
    write_tile(tmp_path, "a", 150.0, 2.0, "g")
    ra, dec = np.array([-210.0, 330.0, 240.0, 150.0]), np.array([2.0, -2.0, 2.0, 2.0])
    assert assigned(tiles_of(tmp_path), ra, dec)[0] == ["a", None, None, "a"]


def test_of_equal_tiles_the_first_by_name_has_the_source(tmp_path):
    for name in ("b", "c", "a"):
        write_tile(tmp_path, name, 150.0, 2.0, "g")
    ra, dec = sky(150.0, 2.0).wcs_pix2world(np.arange(5.0, 195, 19), np.full(10, 31.0), 0)
    names, claims = assigned(tiles_of(tmp_path), ra, dec)
    assert set(names) == {"a"}
    assert set(claims) == {3}


def test_a_sound_tile_comes_before_a_doubtful_one_and_that_before_a_useless_one(tmp_path):
    """Three tiles, the soundest of which has the source nearest to its edge."""
    for name, shift in (("a", 0.0), ("b", 0.002), ("c", 0.004)):
        write_tile(tmp_path, name, 150.0 + shift, 2.0, "g")
    a, b, c = tiles_of(tmp_path)
    useless, doubtful = {"problem": ("truncated", "")}, {"suspect_wcs": "no"}
    ra, dec = sky(150.0, 2.0).wcs_pix2world([100.0, 20.0, 182.0], [100.0] * 3, 0)
    for faults, expected in (
        (({}, {}, {}), ["a", "c", "a"]),
        ((useless, {}, {}), ["b", "c", "a"]),
        (({}, {}, useless), ["a", "b", "a"]),
        ((useless, doubtful, {}), ["c", "c", "a"]),
        ((useless, doubtful, useless), ["b", "b", "a"]),
        ((doubtful, useless, useless), ["a", "a", "a"]),
    ):
        some = [replace(tile, **fault) for tile, fault in zip((a, b, c), faults)]
        names, claims = assigned(some, ra, dec)
        assert names == expected
        assert claims == [3, 3, 1]


def test_the_edge_belongs_to_the_tile(tmp_path):
    write_tile(tmp_path, "a", 150.0, 2.0, "g")
    x = np.array([-0.49, -0.51, SIDE - 0.51, SIDE - 0.49])
    ra, dec = sky(150.0, 2.0).wcs_pix2world(x, np.full(4, 50.0), 0)
    assert assigned(tiles_of(tmp_path), ra, dec)[0] == ["a", None, "a", None]


def test_only_sources_near_a_tile_are_projected_into_it(tmp_path, monkeypatch):
    """A thousand tiles and as many sources on each: the work is the sum, not the product."""
    write_tile(tmp_path, "a", 150.0, 2.0, "g")
    (tile,) = tiles_of(tmp_path)
    many = [tile] * 3
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(0, 360, 20_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 20_000)))
    ra[:50], dec[:50] = sky(150.0, 2.0).wcs_pix2world(*rng.uniform(0, SIDE, (2, 50)), 0)
    projected = []
    from surveyproc.ingest import assign as module

    real = module.locate
    monkeypatch.setattr(module, "locate", lambda t, a, d: projected.append(len(a)) or real(t, a, d))
    names, _ = assigned(many, ra, dec)
    assert sum(name is not None for name in names) == 50
    assert len(projected) == 3
    assert max(projected) <= 60


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 400), st.integers(1, 60), st.floats(1e-6, 1))
def test_partitions_hold_every_row_once_and_not_too_many(seed, count, most, spread):
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 360 * spread, count), np.degrees(np.arcsin(rng.uniform(-spread, spread, count)))
    healpix = np.sort(healpix29(ra, dec).data)
    histogram = Histogram()
    for part in np.array_split(rng.permutation(healpix), 3):
        histogram.add(part)
    partitions = choose_partitions(histogram, most)
    ranges = [pixel_range(int(o), int(p)) for o, p in zip(partitions.order, partitions.pixel)]
    assert all(high <= low for (_, high), (low, _) in itertools.pairwise(ranges))
    found = partitions.of(healpix)
    assert all(ranges[n][0] <= h < ranges[n][1] for n, h in zip(found, healpix))
    rows = np.bincount(found, minlength=len(ranges))
    assert rows.min() > 0
    fits = (rows <= most) | (partitions.order == FINEST)
    assert fits.all()
    for order, pixel in zip(partitions.order, partitions.pixel):
        if order:
            low, high = pixel_range(int(order) - 1, int(pixel) // 4)
            assert np.count_nonzero((healpix >= low) & (healpix < high)) > most, "its parent would have done"


def test_units_cover_every_row_once_and_are_cut_where_a_tile_has_many():
    rng = np.random.default_rng(4)
    chunks = [np.sort(rng.integers(0, 4, size)) for size in (50, 0, 31)]
    plan = CutPlan(cut_units([slices_of(n, tiles) for n, tiles in enumerate(chunks)], 8))
    seen = [np.zeros(len(c), int) for c in chunks]
    for number, unit in enumerate(plan):
        assert unit.number == number
        assert 0 < unit.rows <= 8
        for chunk, start, stop in unit.slices:
            assert set(chunks[chunk][start:stop]) == {unit.tile}
            seen[chunk][start:stop] += 1
    assert all((s == 1).all() for s in seen)
    assert plan.rows == 81
    per_tile = np.bincount(np.concatenate(chunks))
    assert len(plan) == sum(-(-n // 8) for n in per_tile)


def test_the_scale_of_the_test_tiles_is_what_the_survey_reads(tmp_path):
    write_tile(tmp_path, "a", 150.0, 2.0, "g")
    assert tiles_of(tmp_path)[0].pixel_scale_arcsec == pytest.approx(SCALE, rel=1e-6)
