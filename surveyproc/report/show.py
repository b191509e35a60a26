"""One cutout as a picture: in one stretch, or in every stretch that can be made of it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from surveyproc.catalog import Catalog, open_catalog
from surveyproc.cutouts import ImageSpec
from surveyproc.errors import InputError, UsageError, did_you_mean
from surveyproc.images.stretches import STRETCHES, Stretch, find_stretch, stretch_problems, stretched
from surveyproc.quality import Quality
from surveyproc.report.pictures import fetch_pixels
from surveyproc.storage import explain_write_errors

SIDE = 384  # pixels of a panel, at least
PER_ROW = 4
GAP, TEXT, MARGIN = 8, 40, 12
PAPER, INK, PALE = (14, 17, 23), (225, 228, 235), (150, 156, 168)
BAR_SHARE = 0.35
FACTS = ("pixel_scale_arcsec", "cd11", "cd12", "cd21", "cd22", "quality")


@dataclass(frozen=True)
class Shown:
    """What was drawn.

    Attributes
    ----------
    output : str
        The PNG.
    panels : tuple of str
        Title of each panel.
    left_out : dict of str to str
        Stretches that cannot be made of these pixels, and why.
    quality : tuple of str
        Names of the object's quality bits.
    pixel_scale_arcsec : float or None
        Side of a pixel; there is a scale bar when it is known.
    """

    output: str
    panels: tuple[str, ...]
    left_out: dict[str, str]
    quality: tuple[str, ...]
    pixel_scale_arcsec: float | None


def show_cutout(
    catalog_uri: str,
    object_id: str,
    output: str | os.PathLike[str],
    stretch: str | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Shown:
    """Draw a cutout.

    Parameters
    ----------
    catalog_uri : str
        The cutout catalog.
    object_id : str
        As on the command line.
    output : path
        PNG to write.
    stretch : str, optional
        A preset, or ``none`` for flux on a linear scale; all that can be made, side by side, when left out.
    parameters : mapping, optional
        Of that preset.

    Returns
    -------
    Shown

    Raises
    ------
    UsageError
        For an unknown stretch or parameter, or an output that is no PNG.
    InputError
        When there is no such object, its image cannot be decoded, or the stretch cannot be made of it.
    """
    if not str(output).lower().endswith(".png"):
        raise UsageError(
            "the picture is a PNG", where=f"--output {output}", fix="give a name that ends in .png"
        )
    if parameters and stretch is None:
        raise UsageError("parameters are of one stretch", where="--parameters", fix="add --stretch NAME")
    catalog = open_catalog(catalog_uri)
    asked = _asked(catalog.image, stretch, parameters)
    pixels, facts = _fetch(catalog, object_id)
    scale = _pixel_scale(facts)
    panels, left_out = [], {}
    for name, preset in asked.items():
        if problems := _problems(catalog.image, name, preset, scale):
            left_out[name] = "; ".join(problems)
        else:
            panels.append(_panel(pixels, catalog.image, name, preset, scale))
    if not panels:
        raise InputError(
            "; ".join(left_out.values()),
            where=f"{catalog_uri}, --stretch {', '.join(left_out)}",
            fix="choose another stretch, or name the catalog's bands: --stretch NAME --parameters bands=...",
        )
    if catalog.image.orientation == "bottom-up":
        panels = [(title, rgb[::-1]) for title, rgb in panels]
    sheet = _sheet(panels, scale, f"{object_id}  {pixels.shape[1]} x {pixels.shape[0]} px")
    with explain_write_errors(str(output)):
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        sheet.save(output, "PNG", optimize=True)
    bits = Quality(facts.get("quality") or 0)
    return Shown(str(output), tuple(t for t, _ in panels), left_out, tuple(str(b.name) for b in bits), scale)


def _asked(
    image: ImageSpec, stretch: str | None, parameters: Mapping[str, Any] | None
) -> dict[str, Stretch | None]:
    """Name and preset of every panel to try; None draws the pixels as they are."""
    if image.stretch != "none":
        if stretch not in (None, image.stretch):
            if stretch not in (*STRETCHES, "none"):
                find_stretch(str(stretch))
            raise InputError(
                f"the catalog's pixels are images of the stretch {image.stretch} already: no flux is left to stretch",
                where=f"--stretch {stretch}",
                fix="leave --stretch out, or show a catalog of flux",
            )
        return {image.stretch: None}
    if stretch == "none":
        return {"none": None}
    if stretch is not None:
        if stretch not in STRETCHES and (hint := did_you_mean(stretch, ("none",))):
            raise UsageError(f"there is no stretch {stretch!r}.{hint}", where="--stretch")
        return {stretch: find_stretch(stretch, parameters)}
    return {"none": None} | {name: find_stretch(name) for name in STRETCHES}


def _fetch(catalog: Catalog, object_id: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Pixels and facts of one object."""
    wanted: int | str = object_id
    if str(catalog.id_type) == "int64":
        try:
            wanted = int(object_id)
        except ValueError as error:
            raise InputError(
                f"{object_id!r} is no id of this catalog: its ids are whole numbers", where="--id"
            ) from error
    failed: dict[int | str, str] = {}
    found = fetch_pixels(catalog, [wanted], FACTS, failed)
    if wanted in failed:
        raise InputError(f"the image of {wanted} cannot be decoded: {failed[wanted]}", where=catalog.uri)
    if wanted not in found:
        raise InputError(
            f"there is no object {object_id!r} among the {catalog.rows:,} of the catalog",
            where=catalog.uri,
            fix=f'list some ids: surveyproc sql {catalog.uri} "SELECT object_id FROM catalog LIMIT 10"',
        )
    return found[wanted]


def _pixel_scale(facts: dict[str, Any]) -> float | None:
    """Side of a pixel in arcsec: as it is stated, else by the area of the CD matrix."""
    stated = facts.get("pixel_scale_arcsec")
    if stated is not None and stated > 0:
        return float(stated)
    cd = [facts.get(name) for name in ("cd11", "cd12", "cd21", "cd22")]
    if None in cd:
        return None
    area = abs(cd[0] * cd[3] - cd[1] * cd[2])
    return 3600.0 * math.sqrt(area) if area > 0 else None


def _problems(image: ImageSpec, name: str, preset: Stretch | None, scale: float | None) -> list[str]:
    return [] if preset is None else stretch_problems(image, preset, scale is not None)


def _panel(
    pixels: np.ndarray, image: ImageSpec, name: str, preset: Stretch | None, scale: float | None
) -> tuple[str, np.ndarray]:
    """Title and RGB picture ``(H, W, 3)`` uint8."""
    if preset is None and image.stretch == "none":
        title, three = _three(image.bands)
        return f"none: linear, {title}", _linear(pixels[..., [image.bands.index(b) for b in three]])
    if preset is None:
        if pixels.dtype != np.uint8:
            pixels = (np.clip(np.nan_to_num(pixels), 0, 1) * 255 + 0.5).astype(np.uint8)
        return f"{name}: as it is", _rgb(pixels, image.bands)
    if not preset.preset.colour and preset.bands is None:
        title, three = _three(image.bands)
        preset = replace(preset, parameters=type(preset.parameters)(preset.parameters | {"bands": three}))
        name = f"{name}: {title}"
    return name, _rgb(stretched(pixels[None], image, preset, scale)[0], preset.channels(image.bands))


def _three(bands: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Choose bands for red, green and blue: last, middle, first; one band is grey, of two green is the mean."""
    if len(bands) == 1:
        return bands[0], bands
    if len(bands) == 2:
        return f"R {bands[1]}, B {bands[0]}", bands
    chosen = bands[0], bands[len(bands) // 2], bands[-1]
    return "R {2}, G {1}, B {0}".format(*chosen), chosen


def _rgb(shown: np.ndarray, channels: tuple[str, ...]) -> np.ndarray:
    """Bytes of display channels, or of bands from blue to red, as RGB."""
    if shown.shape[2] == 1:
        return np.repeat(shown, 3, axis=2)
    if shown.shape[2] == 2:
        mean = shown.astype(np.uint16).sum(2) // 2
        return np.stack([shown[..., 1], mean.astype(np.uint8), shown[..., 0]], axis=-1)
    if channels == ("R", "G", "B") or shown.shape[2] > 3:
        return shown[..., :3]
    return shown[..., ::-1]


def _linear(flux: np.ndarray) -> np.ndarray:
    """Flux on a linear scale from the lowest to the highest pixel of all bands."""
    flux = np.where(np.isfinite(flux), flux, 0).astype(np.float64)
    low, high = flux.min(), flux.max()
    part = (flux - low) / (high - low if high > low else 1.0)
    return _rgb((part * 255 + 0.5).astype(np.uint8), ("", "", ""))


def _sheet(panels: list[tuple[str, np.ndarray]], scale: float | None, title: str) -> Image.Image:
    """Put panels side by side, `PER_ROW` in a row, each with its title and a scale bar."""
    height, width = panels[0][1].shape[:2]
    zoom = max(1, -(-SIDE // max(height, width)))
    across = min(PER_ROW, len(panels))
    down = -(-len(panels) // across)
    wide, high = width * zoom, height * zoom
    size = (2 * MARGIN + across * (wide + GAP) - GAP, 2 * MARGIN + down * (high + TEXT) + TEXT)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=15)
    for k, (name, rgb) in enumerate(panels):
        left = MARGIN + (k % across) * (wide + GAP)
        top = MARGIN + (k // across) * (high + TEXT)
        panel = Image.fromarray(np.ascontiguousarray(rgb))
        sheet.paste(panel.resize((wide, high), Image.Resampling.NEAREST), (left, top))
        if scale is not None:
            _bar(draw, left, top + high, wide, scale / zoom)
        for line, text in enumerate(_fitting(draw, name, font, wide)):
            draw.text((left, top + high + 3 + 17 * line), text, fill=INK, font=font)
    draw.text((MARGIN, size[1] - TEXT + 8), title, fill=PALE, font=font)
    return sheet


def _fitting(draw: ImageDraw.ImageDraw, text: str, font: Any, width: int) -> Iterator[str]:
    """Cut a title into two lines at most, at its colon, where it is too long for one."""
    if draw.textlength(text, font=font) <= width or ": " not in text:
        yield text
        return
    yield from text.split(": ", 1)


def _bar(draw: ImageDraw.ImageDraw, left: int, bottom: int, width: int, arcsec: float) -> None:
    """Draw a bar of a round length on the lower left, with its length; ``arcsec`` to a pixel of the sheet."""
    length = round_length(BAR_SHARE * width * arcsec)
    pixels = length / arcsec
    x, y = left + 10, bottom - 12
    label = f"{length / 60:g}'" if length >= 60 else f'{length:g}"'
    font = ImageFont.load_default(size=15)
    for colour, grow in (((0, 0, 0), 1), ((255, 255, 255), 0)):
        draw.rectangle((x - grow, y - grow, x + pixels + grow, y + 2 + grow), fill=colour)
    draw.text((x, y - 21), label, fill=(255, 255, 255), font=font, stroke_width=1, stroke_fill=(0, 0, 0))


def round_length(longest: float) -> float:
    """The longest of 1, 2, 5, 10, ... times a power of ten that is not above ``longest`` arcsec; from a minute on, minutes."""
    if longest >= 60:
        return 60 * round_length(longest / 60) if longest < 3600 else 3600.0
    power = 10.0 ** math.floor(math.log10(longest))
    return next(factor * power for factor in (5, 2, 1) if factor * power <= longest * (1 + 1e-9))
