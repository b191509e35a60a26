"""Our HATS catalogs: partitions, leaves, margins, and what our own checks see that others' do not."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from cdshealpix import nested
from hypothesis import given, settings
from hypothesis import strategies as st

from surveyproc.catalog.hats import choose_occupied_pixels, choose_pixels, metadata_files, open_hats
from surveyproc.catalog.hats.checks import catalog_problems
from surveyproc.catalog.hats.margin import Cover, margin_rows
from surveyproc.catalog.hats.properties import parse_properties
from surveyproc.catalog.hats.writer import write_hats
from surveyproc.catalog.sky import healpix29
from surveyproc.errors import InputError, UsageError


def sky_rows(count=1500, seed=0):
    """Rows all over the sky, most of them in a field across the border of four base pixels."""
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 360, count), np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
    most = count * 4 // 5
    ra[:most], dec[:most] = rng.uniform(42, 48, most), rng.uniform(-3, 3, most)
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=count * 4).astype(np.float16)), 4)
    return pa.table(
        {
            "object_id": pa.array(rng.permutation(count)),
            "ra": ra,
            "dec": dec,
            "flag": pa.array([None if i % 7 == 0 else f"f{i % 3}" for i in range(count)]),
            "embedding": embedding,
            "image": pa.array([bytes([i % 256]) * 8 for i in range(count)], pa.binary(8)),
        }
    )


def write(path, table, **options):
    return write_hats(path, lambda: iter(table.to_batches(max_chunksize=500)), "sky", **options)


def sorted_rows(table, columns):
    return table.select(columns).sort_by("object_id").combine_chunks().to_pylist()


@pytest.mark.parametrize(
    "options", [{}, {"memory_bytes": 5_000}, {"multipart": True, "memory_bytes": 60_000}]
)
def test_every_row_is_written_once_and_sorted(tmp_path, options):
    table = sky_rows()
    catalog = write(tmp_path / "c", table, most_rows=200, **options)
    assert len({p.order for p in catalog.partitions}) > 2
    assert sorted_rows(catalog.table(table.column_names), table.column_names) == sorted_rows(
        table, table.column_names
    )
    assert list(catalog_problems(catalog)) == []
    parts = [len(catalog.files(p)) for p in catalog.partitions]
    assert (max(parts) > 1) == bool(options.get("multipart"))
    for file in catalog.uris():
        index = pq.read_table(file, partitioning=None)["_healpix_29"].to_numpy()
        assert (np.diff(index) >= 0).all()
    assert all(catalog.count_rows(p) <= 200 for p in catalog.partitions)
    assert catalog.default_columns == ["object_id", "ra", "dec", "flag", "_healpix_29"]


def test_partitions_by_bytes(tmp_path):
    table = sky_rows(1000)
    row_bytes = table.nbytes / 1000 + 8
    catalog = write(tmp_path / "c", table, most_bytes=int(100 * row_bytes))
    assert 80 <= max(catalog.count_rows(p) for p in catalog.partitions) <= 101


@given(st.dictionaries(st.integers(0, 12 * 4**4 - 1), st.integers(1, 100), max_size=30), st.integers(1, 300))
@settings(deadline=None)
def test_sparse_and_dense_choices_agree(occupied, most):
    pixels = np.array(sorted(occupied), np.int64)
    rows = np.array([occupied[p] for p in pixels], np.int64)
    dense = np.zeros(12 * 4**4, np.int64)
    dense[pixels] = rows
    assert list(choose_occupied_pixels(pixels, rows, 4, most)) == list(choose_pixels(dense, 4, most))


@given(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 767)), min_size=1, max_size=12))
@settings(deadline=None)
def test_a_cover_is_the_whole_sky_without_overlap(places):
    partitions: list[tuple[int, int]] = []
    for order, pixel in sorted(places):
        pixel %= 12 * 4**order
        if not any(pixel >> 2 * (order - o) == p for o, p in partitions):
            partitions.append((order, pixel))
    cover = Cover.of(partitions)
    ends = cover.starts + 4 ** (29 - cover.orders)
    assert cover.starts[0] == 0
    assert (ends[:-1] == cover.starts[1:]).all()
    assert ends[-1] == 12 * 4**29
    assert set(partitions) <= set(zip(cover.orders.tolist(), cover.pixels.tolist()))


def test_margins_are_those_of_brute_force():
    rng = np.random.default_rng(2)
    ra = np.concatenate(
        [rng.uniform(0, 360, 150), rng.uniform(0, 360, 100), rng.uniform(350, 370, 100) % 360]
    )
    dec = np.concatenate(
        [np.degrees(np.arcsin(rng.uniform(-1, 1, 150))), rng.uniform(84, 90, 100), rng.uniform(-44, -36, 100)]
    )
    cover = Cover.of([(1, p) for p in range(0, 16)] + [(0, 5), (2, 130), (2, 131)])
    threshold, steps = 2 * 3600.0, 64
    rows, cells = margin_rows(ra, dec, cover, threshold)
    found = set(zip(rows.tolist(), cells.tolist()))

    points = SkyCoord(ra, dec, unit="deg")
    own = cover.find(healpix29(ra, dec).data)
    inner, outer = set(), set()
    for cell, (order, pixel) in enumerate(zip(cover.orders, cover.pixels)):
        lon, lat = nested.vertices(np.array([pixel], np.uint64), int(order), step=steps)
        border = SkyCoord(lon[0], lat[0])
        spacing = border[1:].separation(border[:-1]).max()
        nearest = points[:, None].separation(border[None]).min(axis=1)
        for row in np.flatnonzero((own != cell) & (nearest <= np.hypot(2 * u.deg, spacing / 2) * 1.002)):
            outer.add((int(row), cell))
            if nearest[row] <= 2 * u.deg:
                inner.add((int(row), cell))
    assert len(inner) > 60
    assert inner <= found <= outer
    with pytest.raises(UsageError, match="wider than the smallest partitions"):
        margin_rows(ra, dec, Cover.of([(12, 5)]), threshold)


def test_a_margin_holds_the_rows_around_each_partition(tmp_path):
    table = sky_rows()
    catalog = write(tmp_path / "c", table, most_rows=300, margin_arcsec=600, memory_bytes=20_000)
    margin = open_hats(catalog.margins["sky_600arcs"])
    assert catalog.default_margin == "sky_600arcs"
    assert (
        parse_properties((tmp_path / "c/sky_600arcs/hats.properties").read_bytes())["hats_margin_threshold"]
        == "600"
    )
    cover = Cover.of([(p.order, p.pixel) for p in catalog.partitions])
    rows, cells = margin_rows(table["ra"].to_numpy(), table["dec"].to_numpy(), cover, 600)
    expected: dict = {}
    for row, cell in zip(rows, cells):
        place = int(cover.orders[cell]), int(cover.pixels[cell])
        expected.setdefault(place, set()).add(table["object_id"][int(row)].as_py())
    stored = {
        (p.order, p.pixel): set(margin.table(["object_id"], [p])["object_id"].to_pylist())
        for p in margin.partitions
    }
    assert stored == expected
    assert sum(map(len, stored.values())) > 50
    assert list(catalog_problems(margin)) == []


def test_rows_without_a_place_and_taken_places_are_refused(tmp_path):
    table = sky_rows(50)
    bad = table.set_column(1, "ra", pa.array([*table["ra"].to_pylist()[:-1], float("nan")]))
    for rows, message in (
        (bad, "1 rows have no usable position"),
        (table.drop_columns(["dec"]), "needs the columns ra and dec"),
        (table.slice(0, 0), "no rows"),
    ):
        with pytest.raises(InputError, match=message):
            write(tmp_path / "c", rows)
        assert not list((tmp_path / "c").rglob("*.parquet"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(InputError, match="holds something else"):
        write(tmp_path / "full", table)


def test_our_checks_see_what_validators_do_not(tmp_path):
    table = sky_rows(600)
    catalog = write(tmp_path / "c", table, most_rows=100)
    first, second = (tmp_path / "c" / name for name in catalog.files()[:2])
    kept = first.read_bytes()

    def problems():
        return list(catalog_problems(open_hats(str(tmp_path / "c"))))

    assert problems() == []
    first.write_bytes(second.read_bytes())
    rows = pq.ParquetFile(second).metadata.num_rows
    assert problems()[0] == f"{rows} rows of pixel {catalog.partitions[0].pixel} of order " + (
        f"{catalog.partitions[0].order} lie in another pixel"
    )
    shifted = pq.read_table(pa.BufferReader(kept))
    shifted = shifted.set_column(1, "ra", pa.array(shifted["ra"].to_numpy() + 90))
    pq.write_table(shifted, first)
    assert "lie in another pixel" in problems()[0]
    pq.write_table(pq.read_table(pa.BufferReader(kept)).slice(1), first)
    assert problems() == ["the catalog has 599 rows, but hats_nrows says 600"]
    first.unlink()
    assert "has no file" in problems()[0]
    first.write_bytes(kept)
    info = tmp_path / "c" / "partition_info.csv"
    lines = info.read_text().splitlines()
    dropped = lines.pop(1)
    info.write_text("\n".join(lines))
    assert "is not listed in partition_info.csv" in problems()[0]
    order, pixel = map(int, dropped.split(","))
    info.write_text("\n".join([*lines, dropped, f"{order + 1},{pixel * 4}"]))
    assert "overlaps" in problems()[0]


def test_metadata_leave_pixels_and_lists_to_those_who_ask():
    schema = sky_rows(1).schema
    files = metadata_files(
        "n", schema, [(1, 5, 3)], {"surveyproc_run": "r", "hats_creation_date": "2026-01-01T00:00UTC"}
    )
    properties = parse_properties(files["hats.properties"])
    assert properties["hats_cols_default"] == "object_id ra dec flag"
    assert properties["hats_creation_date"] == "2026-01-01T00:00UTC"
    assert files["partition_info.csv"] == b"Norder,Npix\n1,5\n"
