"""Cutouts of chosen objects as small pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

from surveyproc.catalog import Catalog, CatalogFile, read_batches
from surveyproc.catalog.adapters.hdf5 import is_hdf5
from surveyproc.catalog.storage import arrow_filesystem, locate_file
from surveyproc.cutouts import DISPLAY_BANDS, ImageSpec
from surveyproc.images.decode import decode_batch

BATCH_ROWS = 256

Cutout = tuple[np.ndarray, dict[str, Any]]


def fetch_cutouts(
    catalog: Catalog, ids: Iterable[int | str], crop: float = 1.0, columns: Iterable[str] = ()
) -> dict[int | str, Cutout]:
    """Read the cutouts of a few objects; only the row groups that hold them are read whole.

    Parameters
    ----------
    catalog : Catalog
        Where they are.
    ids : iterable of int or str
        Objects; those the catalog lacks, or whose image cannot be decoded, are absent from the answer.
    crop : float
        Central fraction of the side that is kept.
    columns : iterable of str
        Other columns wanted; unknown ones are left out.

    Returns
    -------
    dict
        Object id to (RGB uint8 ``(h, w, 3)``, dict of the other columns).
    """
    found = fetch_pixels(catalog, ids, columns)
    return {
        object_id: (display(_centre(pixels, crop), catalog.image), others)
        for object_id, (pixels, others) in found.items()
    }


def fetch_pixels(
    catalog: Catalog,
    ids: Iterable[int | str],
    columns: Iterable[str] = (),
    failed: dict[int | str, str] | None = None,
) -> dict[int | str, Cutout]:
    """As `fetch_cutouts`, the pixels ``(h, w, C)`` as the catalog has them; ``failed`` gets why others cannot be decoded."""
    wanted = pa.array(sorted(set(ids)), catalog.id_type)
    carried = [c for c in columns if c in catalog.schema.names]
    found: dict[int | str, Cutout] = {}
    for rows in _rows_of(catalog, wanted, carried):
        pixels, failures = decode_batch(rows["image"], catalog.image)
        for k, object_id in enumerate(rows["object_id"].to_pylist()):
            if k in failures and failed is not None:
                failed[object_id] = failures[k][1]
            elif k not in failures and object_id not in found:
                found[object_id] = pixels[k], {name: rows[name][k].as_py() for name in carried}
        if len(found) == len(wanted):
            break
    return found


def picture_bands(pixels: np.ndarray, bands: tuple[str, ...]) -> tuple[str, np.ndarray]:
    """Choose the bands of a picture: the last is red, the middle one green, the first blue.

    Bands are in order of wavelength. One band is grey, of two green is the mean; R, G and B are what they say.

    Parameters
    ----------
    pixels : numpy.ndarray
        ``(H, W, C)`` of any dtype.
    bands : tuple of str
        Their C names.

    Returns
    -------
    title : str
        Which band is which; empty for R, G and B.
    picture : numpy.ndarray
        ``(H, W, 3)`` of the same dtype.
    """
    if bands[:3] == DISPLAY_BANDS:
        return "", pixels[..., :3]
    if len(bands) == 1:
        return bands[0], np.repeat(pixels, 3, axis=2)
    if len(bands) == 2:
        mean = pixels.mean(2, dtype=np.float64).astype(pixels.dtype)
        return f"R {bands[1]}, B {bands[0]}", np.stack([pixels[..., 1], mean, pixels[..., 0]], axis=-1)
    places = [len(bands) - 1, len(bands) // 2, 0]
    return "R {}, G {}, B {}".format(*(bands[k] for k in places)), pixels[..., places]


def display(pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Make an RGB picture of one cutout.

    Display images are shown as they are. Flux is stretched by asinh up to its 99.7 percentile, each cutout
    for itself, with the bands of `picture_bands`. FITS rows are drawn with y upwards.

    Parameters
    ----------
    pixels : numpy.ndarray
        ``(h, w, C)``.
    spec : ImageSpec
        What they are.

    Returns
    -------
    numpy.ndarray
        uint8 ``(h, w, 3)``.
    """
    _, rgb = picture_bands(pixels, spec.bands)
    if spec.orientation == "bottom-up":
        rgb = rgb[::-1]
    if rgb.dtype == np.uint8:
        return np.ascontiguousarray(rgb)
    rgb = np.nan_to_num(rgb.astype(np.float32), posinf=0.0, neginf=0.0)
    if spec.stretch == "none":
        rgb = np.clip(rgb, 0, None)
        rgb = np.arcsinh(10 * rgb / max(float(np.percentile(rgb, 99.7)), 1e-12)) / np.arcsinh(10.0)
    return (np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8)


def data_uri(rgb: np.ndarray, longest: int = 128) -> str:
    """Encode a picture as a JPEG ``data:`` address."""
    picture = Image.fromarray(rgb)
    if max(picture.size) > longest:
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return _address(picture, "jpeg", quality=88, subsampling=0, optimize=True)


def png_uri(rgba: np.ndarray) -> str:
    """Encode a picture with transparency as a PNG ``data:`` address."""
    return _address(Image.fromarray(rgba), "png", optimize=True)


def gallery_png(
    rows: list[tuple[str, list[tuple[np.ndarray, str]]]], caption: str, path: str, side: int = 104
) -> None:
    """Write one picture: a row of cutouts for each title.

    Parameters
    ----------
    rows : list of (str, list of (numpy.ndarray, str))
        Title of each row, its RGB cutouts and the words on each.
    caption : str
        Line under the picture.
    path : str
        PNG to write.
    side : int
        Pixels of one cutout.
    """
    gap, text, margin = 6, 26, 14
    across = max(len(pictures) for _, pictures in rows)
    width = 2 * margin + across * (side + gap) - gap
    height = 2 * margin + len(rows) * (side + text + gap) + text
    sheet = Image.new("RGB", (width, height), (14, 17, 23))
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(size=15), ImageFont.load_default(size=11)
    top = margin
    for title, pictures in rows:
        draw.text((margin, top + 3), title, fill=(225, 228, 235), font=font)
        for k, (picture, words) in enumerate(pictures):
            corner = margin + k * (side + gap), top + text
            sheet.paste(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC), corner)
            draw.text((corner[0] + 4, corner[1] + side - 16), words, fill=(200, 205, 215), font=small)
        top += side + text + gap
    draw.text((margin, top + 5), caption, fill=(150, 156, 168), font=font)
    sheet.save(path, optimize=True)


def _rows_of(catalog: Catalog, ids: pa.Array, carried: list[str]) -> Iterator[pa.Table]:
    """Yield the rows with these ids, a batch at a time; footers tell which row groups cannot hold any."""
    for file in catalog.files:
        for group in _groups_with(catalog, file, ids):
            found = pa.Table.from_batches(_read(catalog, file, group, ["object_id"]))["object_id"]
            hits = np.flatnonzero(pc.is_in(found, ids).to_numpy())
            first = 0
            for batch in _read(catalog, file, group, ["object_id", "image", *carried]) if len(hits) else ():
                here = hits[(hits >= first) & (hits < first + batch.num_rows)] - first
                first += batch.num_rows
                if len(here):
                    yield pa.Table.from_batches([batch]).take(here)


def _read(catalog: Catalog, file: CatalogFile, group: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
    return read_batches(catalog.uri, file.path, [group], BATCH_ROWS, columns, form=catalog.form)


def _groups_with(catalog: Catalog, file: CatalogFile, ids: pa.Array) -> Iterator[int]:
    """Row groups that may hold one of some ids."""
    low, high = pc.min(ids).as_py(), pc.max(ids).as_py()
    if is_hdf5(file.path):
        yield from range(len(file.row_groups))
        return
    filesystem, path = locate_file(catalog.uri, file.path)
    with pq.ParquetFile(path, filesystem=arrow_filesystem(filesystem)) as parquet:
        leaves = [parquet.metadata.schema.column(n).path for n in range(parquet.metadata.num_columns)]
        column = leaves.index("object_id")
        for group in range(parquet.num_row_groups):
            if not _outside(parquet.metadata.row_group(group).column(column).statistics, low, high):
                yield group


def _outside(statistics: Any, low: Any, high: Any) -> bool:
    known = statistics is not None and statistics.has_min_max
    return known and (statistics.max < low or statistics.min > high)


def _centre(pixels: np.ndarray, crop: float) -> np.ndarray:
    height, width = (max(1, round(n * crop)) for n in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def _address(picture: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
