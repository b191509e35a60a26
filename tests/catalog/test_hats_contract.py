"""What we write is what LSDB reads: open, cone, box, join, crossmatch with a margin, write back; strictly valid."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from surveyproc.catalog.hats import open_hats
from surveyproc.catalog.hats.checks import catalog_problems
from surveyproc.catalog.hats.writer import write_hats

RADIUS = 30.0


@pytest.fixture(scope="module")
def lsdb():
    module = pytest.importorskip("lsdb")
    import dask

    with dask.config.set(scheduler="synchronous"):
        yield module


def separation_arcsec(ra1, dec1, ra2, dec2):
    ra1, dec1, ra2, dec2 = map(np.radians, (ra1, dec1, ra2, dec2))
    h = np.sin((dec1 - dec2) / 2) ** 2 + np.cos(dec1) * np.cos(dec2) * np.sin((ra1 - ra2) / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(h))) * 3600


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A field across the border of base pixels, as a collection with a margin, and again with folders as leaves."""
    folder = tmp_path_factory.mktemp("hats")
    rng = np.random.default_rng(4)
    ra, dec = rng.uniform(44, 46, 800), rng.uniform(-1, 1, 800)
    table = pa.table(
        {
            "object_id": pa.array(np.arange(800) - 400),
            "ra": ra,
            "dec": dec,
            "name": [f"g{i}" for i in range(800)],
            "embedding": pa.FixedSizeListArray.from_arrays(
                pa.array(rng.normal(size=2400).astype(np.float16)), 3
            ),
        }
    )
    write_hats(folder / "c", lambda: iter(table.to_batches(200)), "c", most_rows=120, margin_arcsec=RADIUS)
    write_hats(
        folder / "parts",
        lambda: iter(table.to_batches(100)),
        "parts",
        most_rows=300,
        multipart=True,
        memory_bytes=20_000,
    )
    near = table.slice(0, 400).set_column(1, "ra", pa.array(ra[:400] + rng.uniform(-25, 25, 400) / 3600))
    write_hats(folder / "near", lambda: iter(near.to_batches()), "near", most_rows=60)
    return folder, table, near


def test_strictly_valid_and_open(written, lsdb):
    from hats.io.validation import is_valid_catalog

    folder, table, _ = written
    for name in ("c", "c/c", "c/c_30arcs", "parts", "near"):
        assert is_valid_catalog(str(folder / name), strict=True), name
    catalog = lsdb.open_catalog(str(folder / "c"))
    assert len(catalog) == 800
    assert list(catalog.columns) == ["object_id", "ra", "dec", "name"]
    assert len(catalog.margin) == open_hats(str(folder / "c/c_30arcs")).rows > 10
    everything = lsdb.open_catalog(str(folder / "parts"), columns="all").compute(progress_bar=False)
    assert sorted(everything["object_id"]) == list(range(-400, 400))
    rows = everything.set_index("object_id")
    stored = dict(zip(table["object_id"].to_pylist(), table["embedding"].to_pylist()))
    assert list(rows.loc[-7, "embedding"]) == stored[-7]


@pytest.mark.parametrize("name", ["c", "parts"])
def test_cone_and_box(written, lsdb, name):
    folder, table, _ = written
    catalog = lsdb.open_catalog(str(folder / name), columns=["object_id", "ra", "dec"])
    ra, dec, ids = (table[column].to_numpy() for column in ("ra", "dec", "object_id"))
    cone = catalog.cone_search(45.0, 0.0, 1200).compute(progress_bar=False)
    inside = ids[separation_arcsec(ra, dec, 45.0, 0.0) < 1200]
    assert sorted(cone["object_id"]) == sorted(inside)
    assert 20 < len(inside) < 400
    box = catalog.box_search(ra=(44.8, 45.3), dec=(-0.2, 0.4)).compute(progress_bar=False)
    expected = ids[(ra > 44.8) & (ra < 45.3) & (dec > -0.2) & (dec < 0.4)]
    assert sorted(box["object_id"]) == sorted(expected)


def test_crossmatch_across_borders_misses_nothing(written, lsdb):
    folder, table, near = written
    left = lsdb.open_catalog(str(folder / "near"), columns=["object_id"])
    right = lsdb.open_catalog(str(folder / "c"), columns=["object_id"])
    pairs = left.crossmatch(right, n_neighbors=50, radius_arcsec=RADIUS, suffixes=("_l", "_r"))
    found = {
        (int(a), int(b))
        for a, b in pairs.compute(progress_bar=False)[["object_id_l", "object_id_r"]].to_numpy()
    }
    distance = separation_arcsec(
        *(near[c].to_numpy()[:, None] for c in ("ra", "dec")), *(table[c].to_numpy() for c in ("ra", "dec"))
    )
    one, other = np.nonzero(distance < RADIUS)
    ids = table["object_id"].to_numpy()
    expected = {(int(ids[a]), int(ids[b])) for a, b in zip(one, other)}
    assert found == expected
    alone = lsdb.open_catalog(str(folder / "c/c"), columns=["object_id"])
    with pytest.warns(RuntimeWarning, match="margin"):
        without = left.crossmatch(alone, n_neighbors=50, radius_arcsec=RADIUS).compute(progress_bar=False)
    assert len(without) < len(expected), "the margin must matter here"


def test_join_and_write_back(written, lsdb, tmp_path):
    folder, table, _ = written
    left = lsdb.open_catalog(str(folder / "c"))
    right = lsdb.open_catalog(str(folder / "parts"), columns=["object_id", "embedding"])
    joined = left.join(
        right, left_on="object_id", right_on="object_id", suffixes=("", "_p"), suffix_method="all_columns"
    )
    rows = joined.compute(progress_bar=False)
    assert sorted(rows["object_id"]) == list(range(-400, 400))
    lsdb.open_catalog(str(folder / "c"), columns="all").write_catalog(
        str(tmp_path / "back"), progress_bar=False
    )
    back = open_hats(str(tmp_path / "back"))
    assert list(catalog_problems(back)) == []
    columns = ["object_id", "ra", "dec", "name", "embedding"]
    ours = back.table(columns).sort_by("object_id")
    assert ours.to_pylist() == table.sort_by("object_id").select(columns).to_pylist()
