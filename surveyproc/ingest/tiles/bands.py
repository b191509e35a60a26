"""Find the image and the planes of one band in its files."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from surveyproc.errors import InputError
from surveyproc.ingest.tiles.headers import BITPIX, BadFile, Unit, walk
from surveyproc.ingest.tiles.layout import Layout
from surveyproc.ingest.tiles.matching import Files
from surveyproc.ingest.tiles.source import InflatingSource, Source, open_source, packing_of
from surveyproc.ingest.tiles.tile import Band, Plane
from surveyproc.ingest.tiles.units import disagreement, find_zeropoints
from surveyproc.ingest.tiles.wcscards import wcs_cards

_NAMES_OF_BAND = ("BAND", "FILTER")


class NoZeropoint(Exception):
    """No header says what the unit of an image is."""

    def __init__(self, band: str, uri: str) -> None:
        super().__init__(band, uri)
        self.band, self.uri = band, uri


def read_band(layout: Layout, band: str, files: Files) -> Band:
    """Read the headers of one band.

    Returns
    -------
    Band
        With the WCS cards of its image; without an image when there is none.

    Raises
    ------
    BadFile
        When a file of it cannot be used.
    NoZeropoint
        When nothing says what the unit of the image is.
    InputError
        When the header contradicts itself on it.
    """
    if ("image", band) not in files:
        return Band(band, None)
    uri = files["image", band]
    image, headers, cards = _find(layout, "image", band, uri)
    if image is None:
        return Band(band, None)
    try:
        facts = _planes(layout, band, image, files)
    except BadFile as error:
        error.grid = (cards, image.shape)
        raise
    return Band(
        band,
        image,
        zeropoint=_zeropoint(layout, band, uri, headers),
        saturation=_first(headers, layout.saturation_keys),
        psf_fwhm_arcsec=_first(headers, layout.psf_keys),
        weight_kind=layout.weight_kind,
        wcs=cards,
        **facts,
    )


def _planes(layout: Layout, band: str, image: Plane, files: Files) -> dict[str, Any]:
    """Find the planes beside an image."""
    facts: dict[str, Any] = {}
    for plane in layout.planes:
        if (plane, band) in files:
            found, plane_headers, _ = _find(layout, plane, band, files[plane, band])
            if found is not None and plane != "psf" and found.shape != image.shape:
                raise BadFile(
                    "different_grids", f"its {plane} plane is {found.shape}, the image {image.shape}"
                )
            facts[plane] = found
            if plane == "mask":
                facts["saturated_bits"] = _bits(layout.saturated_bits, plane_headers)
    return facts


def _find(layout: Layout, plane: str, band: str, uri: str) -> tuple[Plane | None, list[Any], str]:
    """Find a plane of a band in a file, with the headers of its HDU and of the primary one, and its WCS cards."""
    try:
        raw = open_source(uri)
    except FileNotFoundError as error:
        raise BadFile("unreadable", "the file is gone") from error
    packing = packing_of(raw)
    source: Source = raw if packing == "plain" else InflatingSource(raw)
    try:
        hdu = layout.hdus.get(plane)
        wanted = str(hdu).replace("{band}", layout.band_names.get(band, band)) if hdu is not None else None
        primary, unit = _choose(source, wanted, band, plane == "image" and "{band}" not in layout.pattern)
        if unit is None:
            return None, [], ""
        index = _index(unit, band, layout.bands)
        if index is None:
            return None, [], ""
        return _plane(source, unit, index, packing), [unit.values, primary], wcs_cards(unit.header)
    except (EOFError, OSError, zlib.error) as error:
        if isinstance(error, EOFError):
            raise BadFile("truncated", str(error)) from error
        raise BadFile("unreadable", str(error)) from error
    finally:
        source.close()


def _choose(source: Source, wanted: str | None, band: str, shared: bool) -> tuple[Any, Unit | None]:
    """Primary header, and the HDU that was asked for or the first image.

    In a file that several bands share, extensions that are named after bands are told apart by name.
    """
    primary, images = None, []
    for unit in walk(source):
        primary = unit.values if primary is None else primary
        if wanted is not None:
            if wanted == str(unit.number) or wanted.upper() == unit.name:
                if len(unit.axes) < 2:
                    raise BadFile("no_image", f"HDU {wanted} is no image")
                return primary, unit
        elif len(unit.axes) >= 2 and math.prod(unit.axes) > 0:
            if not shared or len(unit.axes) > 2 or band.upper() in _band_names(unit):
                return primary, unit
            images.append(unit)
    if wanted is not None:
        raise BadFile("no_image", f"there is no HDU {wanted} in it")
    if not images:
        raise BadFile("no_image", "there is no image in it")
    if any(_band_names(unit) for unit in images) or len(images) > 1:
        return primary, None
    raise BadFile("no_image", "it holds one image, which does not say of what band (EXTNAME, BAND or FILTER)")


def _band_names(unit: Unit) -> set[str]:
    names = {str(unit.values.get(key, "")).strip().upper() for key in _NAMES_OF_BAND}
    return (names | {unit.name}) - {""}


def _index(unit: Unit, band: str, bands: Sequence[str]) -> int | None:
    """Which image of a cube a band is; None when the cube names its bands and it is not among them."""
    if len(unit.axes) == 2:
        return 0
    if len(unit.axes) > 3:
        raise BadFile("no_image", f"the image has {len(unit.axes)} axes")
    count = unit.axes[0]
    names = named_bands(unit.values, count)
    if names:
        return names.index(band) if band in names else None
    if count == 1:
        return 0
    if count != len(bands):
        raise BadFile(
            "no_image", f"the cube has {count} images, which it does not name, for {len(bands)} bands"
        )
    return list(bands).index(band)


def named_bands(values: Mapping[str, Any], count: int) -> list[str]:
    """Names that a header gives to the images of a cube (BAND0 ..., or BANDS); empty when it does not name all."""
    names = [str(values[f"BAND{n}"]).strip() for n in range(count) if f"BAND{n}" in values]
    together = str(values.get("BANDS", "")).strip()
    if len(names) != count:
        names = list(together) if len(together) == count else together.split(",")
    return names if len(names) == count and all(names) else []


def _plane(source: Source, unit: Unit, index: int, packing: str) -> Plane:
    shape = (unit.axes[-2], unit.axes[-1])
    if unit.compressed:
        if len(unit.axes) > 2:
            raise BadFile("no_image", "tile-compressed cubes are not read; unpack it with funpack")
        bitpix, size, offset = int(unit.number_of("ZBITPIX", 0)), unit.bytes, unit.start
        stop = unit.offset + unit.bytes
    else:
        bitpix = int(unit.number_of("BITPIX", 0))
        size = math.prod(shape) * abs(bitpix) // 8
        offset = unit.offset + index * size
        stop = offset + size
    if bitpix not in BITPIX or min(shape) < 1 or min(unit.blocks) < 1:
        raise BadFile("unreadable", f"the header of HDU {unit.number} has impossible sizes")
    if packing == "plain" and stop > source.size:
        error = BadFile("truncated", f"the file has {source.size} bytes where {stop} are needed")
        error.grid = (wcs_cards(unit.header), shape)
        raise error
    integers = not unit.compressed and bitpix > 0
    scaled = (
        {}
        if unit.compressed
        else {n: float(unit.number_of(n.upper(), d)) for n, d in (("bscale", 1), ("bzero", 0))}
    )
    return Plane(
        uri=source.uri,
        hdu=unit.number,
        slice=index,
        shape=shape,
        bitpix=bitpix,
        offset=offset,
        packing=packing,
        blocks=unit.blocks if unit.compressed else None,
        bscale=scaled.get("bscale", 1.0),
        bzero=scaled.get("bzero", 0.0),
        blank=int(unit.number_of("BLANK", 0)) if integers and "BLANK" in unit.values else None,
        bytes=size if packing == "plain" else source.size,
        version=(source.size, source.version),
    )


def _bits(bits: Sequence[int | str], headers: Sequence[Mapping[str, Any]]) -> int:
    """Mask of bit numbers; a name is looked up in the headers."""
    found = 0
    for bit in bits:
        number = bit if isinstance(bit, int) else _first(headers, (bit,))
        if number is not None:
            found |= 1 << int(number)
    return found


def _first(headers: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> float | None:
    for header in headers:
        for key in keys:
            value = header.get(key)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
                return float(value)
    return None


def _zeropoint(layout: Layout, band: str, uri: str, headers: Sequence[Any]) -> float:
    if band in layout.zeropoints:
        return layout.zeropoints[band]
    found = find_zeropoints(headers, layout.zeropoint_keys)
    if not found:
        raise NoZeropoint(band, uri)
    if said := disagreement(found):
        raise InputError(
            f"the header contradicts itself on the zero point of band {band}: {said}",
            where=uri,
            fix=f"say which is right: --zeropoint {band}=...",
        )
    return next(iter(found.values()))
