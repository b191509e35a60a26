"""Tiles packed and compressed in every way, on disks and in stores: the same pixels, and few bytes for few sources."""

import bz2
import gzip
import io

import fsspec
import numpy as np
import pytest
from astropy.io import fits
from made_tiles import cut, noise, pixels_of, sources_at, tan_header
from stores import environment_of, s3_server

from surveyproc.catalog import ranges
from surveyproc.errors import InputError, ResourceError
from surveyproc.ingest.tiles import CutSettings, find_tiles, read_layout

SHAPE = (400, 500)
KINDS = {
    "rice rows": {"compression_type": "RICE_1"},
    "rice squares": {
        "compression_type": "RICE_1",
        "tile_shape": (100, 100),
        "quantize_level": 16,
        "quantize_method": 1,
    },
    "rice integers": {"compression_type": "RICE_1", "tile_shape": (64, 64)},
    "gzip lossless": {"compression_type": "GZIP_2", "tile_shape": (90, 70), "quantize_level": 0},
    "hcompress": {"compression_type": "HCOMPRESS_1", "tile_shape": (50, 100)},
}


def compressed(path, kind):
    """Write a tile-compressed tile; returns its header and its pixels as astropy unpacks them."""
    pixels = (
        noise(SHAPE)
        if "integers" not in kind and "hcompress" not in kind
        else (noise(SHAPE) * 50).astype(np.int32)
    )
    header = tan_header(SHAPE)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels, header, **KINDS[kind])]).writeto(
        path, overwrite=True
    )
    return header, fits.getdata(path, 1).astype(np.float32)


def survey(pattern):
    (tile,) = find_tiles(read_layout(str(pattern), "g"))
    return tile


def expected(pixels, x, y, size=16):
    starts = [(int(np.ceil(a - size / 2 - 1e-6)), int(np.ceil(b - size / 2 - 1e-6))) for a, b in zip(x, y)]
    return np.stack([pixels[b : b + size, a : a + size] for a, b in starts])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 300])
def test_tile_compressed_images_are_unpacked_as_astropy_does(tmp_path, kind, count):
    header, pixels = compressed(tmp_path / "t_g.fits.fz", kind)
    tile = survey(tmp_path / "{tile}_{band}.fits.fz")
    x, y = np.random.default_rng(3).uniform(20, 380, (2, count))
    rows, rejects, read = cut(tile, sources_at(header, x, y), CutSettings(("g",), 16))
    assert rejects.num_rows == 0
    assert np.array_equal(pixels_of(rows)[:, 0], expected(pixels, x, y))
    assert (read < tile.bytes / 3) == (count == 2)


@pytest.mark.parametrize("packing", ["gz", "bz2", "two bz2 streams", "gz of tile-compressed"])
def test_files_packed_as_a_whole(tmp_path, packing):
    plain = tmp_path / "plain.fits"
    header, pixels = (
        compressed(plain, "rice rows") if "tile" in packing else (tan_header(SHAPE), noise(SHAPE))
    )
    if "tile" not in packing:
        fits.PrimaryHDU(pixels, header).writeto(plain)
    data = plain.read_bytes()
    halves = data[:100_000], data[100_000:]
    packed = {
        "gz": lambda: gzip.compress(data),
        "bz2": lambda: bz2.compress(data),
        "two bz2 streams": lambda: b"".join(bz2.compress(half) for half in halves),
        "gz of tile-compressed": lambda: gzip.compress(data),
    }[packing]()
    (tmp_path / "t_g.fits.x").write_bytes(packed)  # the name says nothing: the first bytes do
    tile = survey(tmp_path / "{tile}_{band}.fits.x")
    x, y = np.random.default_rng(3).uniform(20, 380, (2, 5))
    rows, _, read = cut(tile, sources_at(header, x, y), CutSettings(("g",), 16))
    assert np.array_equal(pixels_of(rows)[:, 0], expected(pixels, x, y))
    assert len(packed) <= read <= len(packed) + 16


def test_a_packed_file_is_inflated_once_for_all_its_bands(tmp_path):
    header = tan_header(SHAPE, BANDS="grz", MAGZERO=31.4)
    cube = noise((3, *SHAPE))
    data = gzip.compress(bytes(_as_file(fits.PrimaryHDU(cube, header))))
    (tmp_path / "t.fits.gz").write_bytes(data)
    (tile,) = find_tiles(read_layout(str(tmp_path / "{tile}.fits.gz"), "zg"))
    rows, _, read = cut(tile, sources_at(header, [100.0], [90.0]), CutSettings(("z", "g"), 16))
    assert np.array_equal(pixels_of(rows)[0], cube[[2, 0], 82:98, 92:108])
    assert read <= len(data) + 16


def _as_file(hdu):
    stream = io.BytesIO()
    hdu.writeto(stream)
    return stream.getvalue()


@pytest.mark.parametrize("damage", ["cut gz", "cut bz2", "flipped gz", "damaged block", "cut heap"])
def test_damage_rejects_the_sources_of_that_tile_and_says_why(tmp_path, damage):
    header = tan_header(SHAPE)
    plain = _as_file(fits.PrimaryHDU(noise(SHAPE), header))
    if "gz" in damage or "bz2" in damage:
        data = bytearray(gzip.compress(plain) if "gz" in damage else bz2.compress(plain))
    else:
        compressed(tmp_path / "c.fits", "gzip lossless")
        data = bytearray((tmp_path / "c.fits").read_bytes())
    if damage.startswith("cut"):
        data = data[: len(data) * 3 // 4]
    else:
        middle = len(data) // 2
        data[middle : middle + 4000] = bytes(4000)
    (tmp_path / "bad_g.fits.fz").write_bytes(data)
    (tmp_path / "good_g.fits.fz").write_bytes(plain)
    bad, good = find_tiles(read_layout(str(tmp_path / "{tile}_{band}.fits.fz"), "g"))
    assert good.problem == ("", "")
    x, y = np.meshgrid(np.arange(20, 480, 20.0), np.arange(20, 380, 20.0))
    rows, rejects, _ = cut(bad, sources_at(header, x.ravel(), y.ravel()), CutSettings(("g",), 32))
    assert rows.num_rows == 0
    assert set(rejects["reason"].to_pylist()) == {"truncated" if damage.startswith("cut") else "unreadable"}
    assert str(tmp_path / "bad_g.fits.fz") in rejects["detail"][0].as_py()


@pytest.fixture
def counted(monkeypatch):
    """Bytes and requests that go to a store, counted where they are made."""
    made = []
    fetch = ranges.StoreObject.fetch
    monkeypatch.setattr(
        ranges.StoreObject, "fetch", lambda self, a, b: made.append(b - a) or fetch(self, a, b)
    )
    return made


def in_memory(folder, data):
    fsspec.filesystem("memory").pipe_file(f"/{folder}/t_g.fits", data)
    return f"memory://{folder}/{{tile}}_{{band}}.fits"


def test_few_sources_of_a_plain_tile_move_their_rows_only(counted):
    header, pixels = tan_header(SHAPE), noise(SHAPE)
    tile = survey(in_memory("few", _as_file(fits.PrimaryHDU(pixels, header))))
    counted.clear()
    x, y = np.array([50.0, 300.0, 60.0]), np.array([60.0, 200.0, 64.0])
    rows, _, read = cut(tile, sources_at(header, x, y), CutSettings(("g",), 16))
    assert np.array_equal(pixels_of(rows)[:, 0], expected(pixels, x, y))
    assert read == sum(counted) == (20 + 16) * 500 * 4  # rows 52 to 71 and 192 to 207
    assert len(counted) == 2


def test_many_sources_move_the_tile_once(counted):
    header, pixels = tan_header(SHAPE), noise(SHAPE)
    tile = survey(in_memory("many", _as_file(fits.PrimaryHDU(pixels, header))))
    counted.clear()
    x, y = np.random.default_rng(3).uniform(20, 380, (2, 400))
    rows, _, read = cut(tile, sources_at(header, x, y), CutSettings(("g",), 16))
    assert np.array_equal(pixels_of(rows)[:, 0], expected(pixels, x, y))
    assert read == sum(counted) == 400 * 500 * 4


@pytest.mark.parametrize("count", [1, 12, 500])
def test_a_compressed_tile_in_a_store_moves_at_most_1_3_times_the_blocks_touched(tmp_path, counted, count):
    shape = (2000, 2000)
    header, path = tan_header(shape), tmp_path / "t.fits"
    hdu = fits.CompImageHDU(noise(shape), header, compression_type="RICE_1", tile_shape=(100, 100))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    with fits.open(path, disable_image_compression=True) as hdus:
        lengths = [len(block) for block in hdus[1].data["COMPRESSED_DATA"]]
    tile = survey(in_memory(f"box{count}", path.read_bytes()))
    counted.clear()
    x, y = np.random.default_rng(3).uniform(20, 1980, (2, count))
    rows, _, read = cut(tile, sources_at(header, x, y), CutSettings(("g",), 32))
    assert np.array_equal(pixels_of(rows)[:, 0], expected(fits.getdata(path, 1), x, y, 32))
    left, bottom = (np.ceil(v - 16 - 1e-6).astype(int) for v in (x, y))
    touched = {
        (row, column)
        for a, b in zip(left, bottom)
        for row in range(b // 100, (b + 31) // 100 + 1)
        for column in range(a // 100, (a + 31) // 100 + 1)
    }
    held = sum(lengths[row * 20 + column] for row, column in touched)
    assert read == sum(counted)
    headers = 8 * 2880
    assert read - headers <= 1.3 * held


def test_the_survey_of_a_store_moves_headers_only(counted):
    pattern = in_memory("head", _as_file(fits.PrimaryHDU(noise((1000, 1000)), tan_header((1000, 1000)))))
    survey(pattern)
    assert sum(counted) < 50_000


def test_tiles_of_a_real_object_store(tmp_path, monkeypatch):
    header, pixels = compressed(tmp_path / "t_g.fits.fz", "rice squares")
    with s3_server() as server, environment_of(server, monkeypatch):
        store = fsspec.filesystem("s3")
        store.put_file(str(tmp_path / "t_g.fits.fz"), "survey/q1/t_g.fits.fz")
        tile = survey("s3://survey/q1/{tile}_{band}.fits.fz")
        x, y = np.array([50.0]), np.array([60.0])
        rows, _, read = cut(tile, sources_at(header, x, y), CutSettings(("g",), 16))
        assert np.array_equal(pixels_of(rows)[:, 0], expected(pixels, x, y))
        assert read < tile.bytes / 3
        store.pipe_file("survey/q1/t_g.fits.fz", (tmp_path / "t_g.fits.fz").read_bytes() + bytes(2880))
        with pytest.raises(InputError, match="changed since it was surveyed"):
            cut(tile, sources_at(header, x, y), CutSettings(("g",), 16))


@pytest.mark.parametrize("kind", ["plain", "rice rows", "gz"])
def test_a_store_that_fails_is_no_fault_of_the_sources(tmp_path, counted, monkeypatch, kind):
    header, data = tan_header(SHAPE), _as_file(fits.PrimaryHDU(noise(SHAPE), tan_header(SHAPE)))
    if kind == "gz":
        data = gzip.compress(data)
    elif kind != "plain":
        compressed(tmp_path / "t.fits", kind)
        data = (tmp_path / "t.fits").read_bytes()
    tile = survey(in_memory(f"failing {kind}", data))

    def fail(self, start, stop):
        raise ResourceError("the store does not answer as it should", where=self.path)

    monkeypatch.setattr(ranges.StoreObject, "fetch", fail)
    with pytest.raises(ResourceError, match="does not answer"):
        cut(tile, sources_at(header, [50.0], [60.0]), CutSettings(("g",), 16))


@pytest.mark.parametrize("kind", ["plain", "gz", "rice squares"])
def test_bytes_changed_anywhere_give_rows_rejects_or_a_refusal(tmp_path, kind):
    header = tan_header(SHAPE)
    data = _as_file(fits.PrimaryHDU(noise(SHAPE), header))
    if kind == "rice squares":
        compressed(tmp_path / "c.fits", kind)
        data = (tmp_path / "c.fits").read_bytes()
    data = gzip.compress(data, 1) if kind == "gz" else data
    x, y = np.random.default_rng(0).uniform(20, 380, (2, 20))
    sources, ends = sources_at(header, x, y), set()
    for seed in range(25):
        rng = np.random.default_rng(seed)
        spoilt = bytearray(data)
        region = len(data) if seed % 3 == 0 else 20_000
        for place in rng.integers(0, region, rng.integers(1, 30)):
            spoilt[place] = rng.integers(32, 127)
        (tmp_path / "t_g.fits").write_bytes(spoilt if seed % 5 else spoilt[: rng.integers(1, len(spoilt))])
        try:
            rows, rejects, _ = cut(survey(tmp_path / "{tile}_{band}.fits"), sources, CutSettings(("g",), 16))
        except InputError:
            ends.add("refused")
        else:
            ends |= {"rows"} if rows.num_rows else set(rejects["reason"].to_pylist())
    assert len(ends) > 1
