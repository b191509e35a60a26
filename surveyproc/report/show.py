"""One cutout as a picture: in one stretch, or in every stretch that can be made of it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surveyproc.catalog import Catalog, open_catalog
from surveyproc.cutouts import ImageSpec
from surveyproc.errors import InputError, UsageError
from surveyproc.images.stretches import STRETCHES, Stretch, find_stretch, stretch_problems, stretched
from surveyproc.quality import flaw_names
from surveyproc.report.pictures import fetch_pixels, picture_bands
from surveyproc.report.sheet import directions, make_sheet
from surveyproc.storage import explain_write_errors

CD = ("cd11", "cd12", "cd21", "cd22")
FACTS = ("pixel_scale_arcsec", *CD, "quality")
LINEAR_PERCENTILES = (0.5, 99.5)


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
    if parameters and stretch in (None, "none"):
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
    upwards = catalog.image.orientation == "bottom-up"
    if upwards:
        panels = [(title, rgb[::-1]) for title, rgb in panels]
    cd = _cd(facts)
    compass = None if cd is None else directions(cd, upwards)
    sheet = make_sheet(panels, f"id {object_id}, {pixels.shape[1]} x {pixels.shape[0]} px", scale, compass)
    with explain_write_errors(str(output)):
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        sheet.save(output, "PNG", optimize=True)
    return Shown(str(output), tuple(t for t, _ in panels), left_out, flaw_names(facts.get("quality")), scale)


def _asked(
    image: ImageSpec, stretch: str | None, parameters: Mapping[str, Any] | None
) -> dict[str, Stretch | None]:
    """Name and preset of every panel to try; None draws the pixels as they are."""
    if image.stretch != "none":
        if stretch not in (None, image.stretch) or parameters:
            if stretch not in (*STRETCHES, "none"):
                find_stretch(str(stretch))
            raise InputError(
                f"the catalog's pixels are images of the stretch {image.stretch} already: no flux is left to stretch",
                where=f"--stretch {stretch}",
                fix="leave --stretch and --parameters out, or show a catalog of flux",
            )
        return {image.stretch: None}
    if stretch == "none":
        return {"none": None}
    if stretch is not None:
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
                f"{object_id!r} is no id of this catalog: its ids are whole numbers",
                where="--id",
                fix="give one id, a whole number",
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
    cd = _cd(facts)
    area = 0.0 if cd is None else abs(float(np.linalg.det(cd)))
    return 3600.0 * math.sqrt(area) if area > 0 else None


def _cd(facts: dict[str, Any]) -> np.ndarray | None:
    """``(2, 2)`` degrees to a pixel."""
    values = [facts.get(name) for name in CD]
    return None if None in values else np.array(values, dtype=np.float64).reshape(2, 2)


def _problems(image: ImageSpec, name: str, preset: Stretch | None, scale: float | None) -> list[str]:
    return [] if preset is None else stretch_problems(image, preset, scale is not None)


def _panel(
    pixels: np.ndarray, image: ImageSpec, name: str, preset: Stretch | None, scale: float | None
) -> tuple[str, np.ndarray]:
    """Title and RGB picture ``(H, W, 3)`` uint8."""
    if preset is not None:
        own = preset.channels(image.bands)
        shown = stretched(pixels[None], image, preset, scale)[0]
        bands, three = picture_bands(shown, own)
        return (name if preset.preset.colour else f"{name}: {bands}"), three
    if image.stretch == "none":
        low, high = LINEAR_PERCENTILES
        bands, three = picture_bands(pixels, image.bands)
        return f"none: linear from {low:g} to {high:g} %, {bands}", _linear(three)
    if pixels.dtype != np.uint8:
        pixels = (np.clip(np.nan_to_num(pixels), 0, 1) * 255 + 0.5).astype(np.uint8)
    bands, three = picture_bands(pixels, image.bands)
    return f"{name}: as it is{bands and ', '}{bands}", three


def _linear(flux: np.ndarray) -> np.ndarray:
    """Flux on one linear scale for all bands, between two percentiles."""
    flux = np.where(np.isfinite(flux), flux, 0).astype(np.float64)
    low, high = np.percentile(flux, LINEAR_PERCENTILES)
    part = np.clip((flux - low) / (high - low if high > low else 1.0), 0.0, 1.0)
    return (part * 255 + 0.5).astype(np.uint8)
