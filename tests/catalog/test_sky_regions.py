"""Regions against brute force: triple products, plain arithmetic, and the index of every point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from surveyproc.catalog.sky import healpix29, pixel_centres, pixel_radius
from surveyproc.catalog.sky_regions import Box, Cone, Moc, Polygon, separation_arcsec
from surveyproc.errors import InputError, UsageError

RNG = np.random.default_rng(6)
EDGE = 1e-9  # radians: nearer to an edge than this, rounding may decide

RA = st.one_of(st.floats(-360, 360), st.sampled_from([0.0, 360.0, -360.0, 180.0, 45.0, 1e-12]))
DEC = st.one_of(st.floats(-90, 90), st.sampled_from([90.0, -90.0, 0.0, 41.8103148957786, 89.9999999]))
SIZE = st.one_of(st.floats(1e-3, 1), st.floats(1, 3600), st.floats(3600, 648_000))


def vectors(ra, dec):
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


def angle(one, other):
    """Kahan: twice the angle of half the chord and half the sum, precise everywhere."""
    return 2 * np.arctan2(np.linalg.norm(one - other, axis=-1), np.linalg.norm(one + other, axis=-1))


def around(ra, dec, radius_deg, count=400):
    """Positions all over the sky, and many at distances like the radius from a centre, as RA and Dec."""
    centre = vectors(ra, dec)
    away = RNG.normal(size=(count, 3)) * np.radians(radius_deg) * RNG.uniform(0, 1.5, (count, 1))
    points = np.concatenate([centre + away, RNG.normal(size=(count // 4, 3))])
    points /= np.linalg.norm(points, axis=1)[:, None]
    found = (
        np.degrees(np.arctan2(points[:, 1], points[:, 0])),
        np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1]))),
    )
    shift = RNG.choice([0, 360, 0], len(points))
    ras = np.concatenate([found[0] + np.where(found[0] < 0, shift, 0), [0, 90, 359.9999999, 0, ra % 360]])
    return ras, np.concatenate([found[1], [90, -90, 0, 0, dec]])


def is_covered(region, ra, dec):
    pixels = healpix29(ra, dec)
    low, high = region.cover().T
    assert (low < high).all()
    assert (low[1:] > high[:-1]).all(), "ranges ascend and do not touch"
    place = np.searchsorted(low, pixels.data, side="right") - 1
    return (place >= 0) & (pixels.data < high[np.maximum(place, 0)])


@settings(max_examples=80, deadline=None)
@given(RA, DEC, SIZE)
@example(0.0, 90.0, 1.0)
@example(0.0, 0.0, 0.01)
@example(120.0, -90.0, 648_000.0)
def test_a_cone_holds_what_is_near_enough_and_its_cover_misses_none_of_it(ra, dec, size):
    cone = Cone(ra, dec, size)
    points = around(ra, dec, size / 3600)
    distance = angle(vectors(*points), vectors(ra, dec))
    inside = cone.contains(*points)
    clear = np.abs(distance - np.radians(size / 3600)) > EDGE
    assert (inside == (distance <= np.radians(size / 3600)))[clear].all()
    assert np.abs(np.radians(cone.distance_arcsec(*points) / 3600) - distance).max() < 1e-14
    assert inside[-1], "the centre"
    assert is_covered(cone, *points)[inside].all()


@settings(max_examples=80, deadline=None)
@given(RA, st.floats(0, 400), DEC, st.floats(0, 60))
@example(350.0, 20.0, -5.0, 10.0)
@example(0.0, 360.0, 80.0, 10.0)
@example(359.99999, 0.00002, 89.9999, 0.0001)
def test_a_box_is_what_lies_between_meridians_and_parallels(west, width, south, height):
    east, north = west + width, min(90.0, south + height)
    if not abs(east) <= 360:
        west, east = west - 360, east - 360
    if not (abs(west) <= 360 and abs(east) <= 360):
        return
    box = Box((west, east), (south, north))
    ra, dec = around((west + east) / 2, (south + north) / 2, max(width, height, 1e-4))
    inside = box.contains(ra, dec)
    from_west = [[ra_i + turn - west for turn in (-720, -360, 0, 360, 720, 1080)] for ra_i in ra.tolist()]
    expected = np.array([any(0 <= d <= east - west for d in turns) for turns in from_west])
    clear = np.array([all(min(abs(d), abs(d - (east - west))) > 1e-9 for d in turns) for turns in from_west])
    expected &= (dec >= south) & (dec <= north)
    assert (inside == expected)[clear].all()
    assert is_covered(box, ra, dec)[inside].all()


@settings(max_examples=80, deadline=None)
@given(RA, DEC, st.floats(1e-5, 40), st.integers(3, 7), st.integers(0, 2**31), st.booleans())
@example(0.0, 90.0, 1.0, 3, 0, False)
@example(0.0, 0.0, 1e-5, 4, 1, True)
@example(10.0, -90.0, 40.0, 7, 2, True)
def test_a_polygon_is_the_fan_of_its_triangles(ra, dec, size, corners, seed, backwards):
    rng = np.random.default_rng(seed)
    turns = 2 * np.pi * (np.arange(corners) + rng.uniform(0, 0.4, corners)) / corners
    centre = vectors(ra, dec)
    across = np.cross(np.eye(3)[np.argmin(np.abs(centre))], centre)
    across /= np.linalg.norm(across)
    up = np.cross(centre, across)
    reach = np.radians(size) * rng.uniform(0.2, 1, corners)
    ring = (np.cos(turns)[:, None] * across + np.sin(turns)[:, None] * up) * np.tan(reach)[:, None] + centre
    ring /= np.linalg.norm(ring, axis=1)[:, None]
    lon = np.degrees(np.arctan2(ring[:, 1], ring[:, 0]))
    lat = np.degrees(np.arctan2(ring[:, 2], np.hypot(ring[:, 0], ring[:, 1])))
    listed = list(zip(lon.tolist(), lat.tolist()))
    polygon = Polygon(tuple(listed[::-1] if backwards else listed))

    points = around(ra, dec, size)
    p = vectors(*points)
    expected, clear = np.zeros(len(p), bool), np.ones(len(p), bool)
    for i in range(corners):
        sides = []
        for a, b in ((centre, ring[i - 1]), (ring[i - 1], ring[i]), (ring[i], centre)):
            normal = np.cross(a, b)
            sides.append(p @ (normal / np.linalg.norm(normal)))
        expected |= (np.array(sides) > 0).all(axis=0)
        clear &= np.abs(sides[1]) > EDGE
        clear &= np.abs(sides[0]) > EDGE
    inside = polygon.contains(*points)
    assert (inside == expected)[clear].all()
    assert is_covered(polygon, *points)[inside].all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(RA, DEC, SIZE), min_size=1, max_size=3), st.integers(2, 12))
def test_a_moc_is_what_mocpy_says(cones, depth):
    import astropy.units as u
    from astropy.coordinates import Latitude, Longitude
    from mocpy import MOC

    maps = [
        MOC.from_cone(lon=a * u.deg, lat=d * u.deg, radius=r * u.arcsec, max_depth=depth) for a, d, r in cones
    ]
    whole = maps[0].union(*maps[1:]) if len(maps) > 1 else maps[0]
    moc = Moc(np.asarray(whole.to_depth29_ranges, np.int64))
    ra, dec = around(*cones[0][:2], cones[0][2] / 3600)
    expected = whole.contains_lonlat(Longitude(ra, u.deg), Latitude(dec, u.deg))
    inside = moc.contains(ra, dec)
    assert (inside == expected).all()
    assert is_covered(moc, ra, dec)[inside].all()


def test_no_point_of_a_pixel_is_farther_from_its_centre_than_its_radius():
    from cdshealpix.nested import healpix_to_lonlat, vertices

    for order in (0, 1, 2, 3, 7, 12, 20, 29):
        pixels = np.unique(RNG.integers(0, 12 * 4**order, 500))
        lon, lat = healpix_to_lonlat(pixels.astype(np.uint64), order)
        ra, dec = pixel_centres(order, pixels)
        centres = vectors(ra, dec)
        assert angle(centres, vectors(lon.deg, lat.deg)).max() < 2e-15
        lon, lat = vertices(pixels.astype(np.uint64), order)
        corners = angle(centres[:, None], vectors(lon.deg, lat.deg))
        assert corners.max() <= np.radians(pixel_radius(order))
        assert order < 3 or corners.max() > 0.9 * np.radians(pixel_radius(order))
    ra, dec = around(45.0, 30.0, 90.0, 20_000)
    for order in (0, 1, 4):
        pixels = healpix29(ra, dec).data >> 2 * (29 - order)
        away = angle(vectors(ra, dec), vectors(*pixel_centres(order, pixels)))
        assert away.max() <= np.radians(pixel_radius(order))


def test_a_cover_is_not_much_larger_than_its_region():
    for region, area in (
        (Cone(10, 20, 3600), np.pi),
        (Box((359, 1), (-1, 1)), 4.0),
        (Polygon(((0, 0), (2, 0), (2, 2), (0, 2))), 4.0),
    ):
        low, high = region.cover().T
        square_degrees = (high - low).sum() / (12 * 4.0**29) * 41252.96
        assert area <= square_degrees < 2 * area


def test_separation_is_that_of_astropy():
    from astropy.coordinates import angular_separation

    ra, dec = around(10, 60, 30.0)
    expected = np.degrees(angular_separation(*np.radians([10.0, 60.0]), *np.radians([ra, dec]))) * 3600
    assert np.allclose(separation_arcsec(ra, dec, 10.0, 60.0), expected, rtol=1e-12, atol=1e-9)


def test_positions_that_are_not_there_are_in_no_region():
    ra, dec = np.array([np.nan, 10.0, np.nan]), np.array([20.0, np.nan, np.nan])
    moc = Moc(np.array([[0, 12 * 4**29]]))
    square = Polygon(((9, 19), (11, 19), (11, 21), (9, 21)))
    for region in (Cone(10, 20, 648_000), Box((0, 360), (-90, 90)), square, moc):
        assert not region.contains(ra, dec).any()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Cone(400, 95, -3), ["ra 400", "dec 95", "radius -3"]),
        (lambda: Cone(float("nan"), 0, 1), ["ra nan"]),
        (lambda: Box((0, 1), (5, 2)), ["southern edge first"]),
        (lambda: Box((0, 500), (0, 2)), ["ra 500"]),
        (lambda: Polygon(((0, 0), (1, 1))), ["2 corners"]),
        (lambda: Polygon(((0, 0), (120, 0), (240, 0))), ["more than 80 degrees"]),
    ],
)
def test_regions_that_cannot_be_are_refused_with_all_reasons(make, words):
    with pytest.raises(UsageError) as refused:
        make()
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize("suffix", [".fits", ".json", ".txt"])
def test_a_moc_is_read_in_every_form(tmp_path, suffix):
    from mocpy import MOC

    path = tmp_path / f"m{suffix}"
    form = {".fits": "fits", ".json": "json", ".txt": "ascii"}[suffix]
    MOC.from_string("3/5 4/100-101").save(str(path), form)
    shift5, shift4 = 2 * (29 - 3), 2 * (29 - 4)
    assert Moc.load(path).ranges.tolist() == [[5 << shift5, 6 << shift5], [100 << shift4, 102 << shift4]]


def test_a_file_that_is_no_moc_is_refused(tmp_path):
    (tmp_path / "page.fits").write_text("<html>not found</html>")
    (tmp_path / "empty.txt").write_text("")
    for name in ("page.fits", "absent.fits", "empty.txt"):
        with pytest.raises(InputError) as refused:
            Moc.load(tmp_path / name)
        assert name in str(refused.value)
