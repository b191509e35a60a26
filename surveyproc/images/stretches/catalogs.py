"""A stretch on the pixels of a catalog: its bands, its unit, its pixel scale."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from surveyproc.cutouts import ImageSpec
from surveyproc.errors import InputError
from surveyproc.images.stretches.arrays import namespace
from surveyproc.images.stretches.presets import PRESETS, Stretch, find_stretch
from surveyproc.units import KNOWN, nanomaggies_per_unit

CHUNK_VALUES = (
    1 << 15
)  # of flux at once on a CPU: its caches hold the few arrays of float64 that a stretch makes
DEVICE_CHUNK_VALUES = 1 << 24


def stretch_problems(spec: ImageSpec, stretch: Stretch, has_pixel_scale: bool) -> list[str]:
    """List why a stretch cannot be made of a catalog's flux.

    Parameters
    ----------
    spec : ImageSpec
        The flux, ``stretch`` none.
    stretch : Stretch
    has_pixel_scale : bool
        The rows say ``pixel_scale_arcsec``.

    Returns
    -------
    list of str
        Empty when it can.
    """
    found = []
    if missing := [band for band in stretch.bands or () if band not in spec.bands]:
        found.append(
            f"there is no band {', '.join(missing)}, which the stretch {stretch.name} needs: bands are "
            f"{', '.join(spec.bands)}"
        )
    if stretch.preset.flux_unit and nanomaggies_per_unit(spec.unit, spec.zeropoint) is None:
        found.append(_unit_problem(spec, stretch.name))
    if stretch.pixel_arcsec is not None and not has_pixel_scale:
        found.append(f"there is no column pixel_scale_arcsec, which the stretch {stretch.name} needs")
    return found


def display_stretches(spec: ImageSpec) -> list[str]:
    """Name the presets that make R, G, B display images of a catalog's flux, given the pixel scale of its rows."""
    colour = (find_stretch(name) for name, preset in PRESETS.items() if preset.colour)
    return [stretch.name for stretch in colour if not stretch_problems(spec, stretch, True)]


def stretched(pixels: Any, spec: ImageSpec, stretch: Stretch, pixel_scale_arcsec: Any = None) -> Any:
    """Stretch flux cutouts.

    Parameters
    ----------
    pixels : numpy.ndarray or torch.Tensor
        ``(N, H, W, C)`` flux as ``spec`` says; values that are not finite count as 0.
    spec : ImageSpec
        What they are: bands, unit, zero point.
    stretch : Stretch
    pixel_scale_arcsec : array of N values, or one, optional
        Side of a pixel; needed where the stretch brings flux to a pixel of its own.

    Returns
    -------
    numpy.ndarray or torch.Tensor
        ``(N, H, W, C')`` uint8, of the kind of ``pixels``.

    Raises
    ------
    InputError
        When `stretch_problems` has something to say.
    """
    if problems := stretch_problems(spec, stretch, pixel_scale_arcsec is not None):
        raise InputError(
            "; ".join(problems), fix="choose another stretch, or a catalog that says what it holds"
        )
    on_device = not isinstance(pixels, np.ndarray)
    if on_device and pixels.device.type == "cpu":  # numpy's asinh is the faster one there
        found = stretched(pixels.numpy(), spec, stretch, pixel_scale_arcsec)
        return namespace(pixels).from_numpy(found)
    factor: Any = nanomaggies_per_unit(spec.unit, spec.zeropoint) if stretch.preset.flux_unit else 1.0
    factors = np.full(len(pixels), factor)
    if stretch.pixel_arcsec is not None:
        factors *= (stretch.pixel_arcsec / np.asarray(pixel_scale_arcsec, dtype=np.float64)) ** 2
    positions = [spec.bands.index(band) for band in stretch.bands or spec.bands]
    chunk = DEVICE_CHUNK_VALUES if on_device else CHUNK_VALUES
    rows = max(1, chunk // max(1, len(positions) * pixels.shape[1] * pixels.shape[2]))
    parts = [
        stretch(_flux(pixels[start : start + rows], positions, factors[start : start + rows]))
        for start in range(0, max(1, len(pixels)), rows)
    ]
    return parts[0] if len(parts) == 1 else _joined(parts)


def stretched_spec(spec: ImageSpec, stretch: Stretch) -> ImageSpec:
    """Describe what `stretched` makes of such cutouts."""
    bands = stretch.channels(spec.bands)
    return replace(
        spec,
        encoding="raw",
        shape=(*spec.shape[:2], len(bands)),
        dtype="uint8",
        layout="HWC",
        bands=bands,
        unit=None,
        zeropoint=None,
        stretch=stretch.name,
        stretch_parameters=stretch.parameters,
        stretch_version=stretch.version,
    )


def _flux(pixels: Any, positions: list[int], factors: np.ndarray) -> Any:
    """``(n, C, H, W)`` float64 flux of some bands, in the stretch's unit and pixel."""
    if isinstance(pixels, np.ndarray):
        return pixels.transpose(0, 3, 1, 2)[:, positions].astype(np.float64) * factors[:, None, None, None]
    torch = namespace(pixels)
    planes = pixels.permute(0, 3, 1, 2)[:, positions].to(torch.float64)
    return planes * torch.from_numpy(factors).to(pixels.device)[:, None, None, None]


def _joined(parts: list[Any]) -> Any:
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else namespace(parts[0]).cat(parts)


def _unit_problem(spec: ImageSpec, name: str) -> str:
    said = [f"unit {spec.unit!r}"] if spec.unit else []
    said += [f"zero point {spec.zeropoint:g}"] if spec.zeropoint is not None else []
    return (
        f"the unit of the flux is not known ({' with '.join(said) or 'none is stated'}), and the stretch {name} needs "
        f"nanomaggies: it can be {KNOWN}, or any with its zero point"
    )
