"""From a catalog's pixels to what a bundle sees: bands, unit, stretch, orientation, view."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from surveyproc.cutouts import ImageSpec, InputContract
from surveyproc.errors import InputError, did_you_mean
from surveyproc.images.stretches import (
    Stretch,
    display_stretches,
    find_stretch,
    stretch_problems,
    stretched,
)
from surveyproc.images.stretches.presets import PRESETS
from surveyproc.images.views import crop_pixels, finish, prepare, select_bands
from surveyproc.units import nanomaggies_per_unit


class BundleInput:
    """Brings decoded cutouts of one catalog to the input of one bundle, on the device they are on.

    Flux is stretched where the bundle was trained on a stretch, to the same bytes that a catalog of that stretch holds;
    flux of another unit is converted where the bundle says its own.

    Parameters
    ----------
    contract : InputContract
        The bundle's input.
    image : ImageSpec
        The catalog's pixels. Pixels that are not what the bundle was trained on (`mismatches`) are taken as they are.

    Raises
    ------
    InputError
        When bands are missing, or the flux cannot be stretched.
    """

    def __init__(self, contract: InputContract, image: ImageSpec) -> None:
        self.contract = contract
        self.stretch = _stretch_to_make(contract, image)
        self._image, self._factor = image, 1.0
        self._positions: list[int] = []
        if self.stretch is None:
            self._positions = contract.band_positions(tuple(image.bands))
            self._factor = _factor(contract, image) or 1.0
        elif problems := stretch_problems(image, self.stretch, has_pixel_scale=True):
            raise InputError(
                "; ".join(problems),
                where="--input and --bundle",
                fix="choose another bundle, or a catalog that says what it holds: this cannot be forced",
            )
        self._flip = None not in (turns := (contract.orientation, image.orientation)) and turns[0] != turns[1]

    @property
    def needs_pixel_scale(self) -> bool:
        """Whether each row must say its ``pixel_scale_arcsec``."""
        return self.stretch is not None and self.stretch.pixel_arcsec is not None

    @property
    def dtype(self) -> str:
        """Of what `pixels` gives."""
        if self.stretch is not None:
            return "uint8"
        return self._image.dtype if self._factor == 1.0 else "float32"

    def pixels(self, batch: torch.Tensor, pixel_scale_arcsec: Any = None) -> torch.Tensor:
        """``(N, H, W, C)`` of the catalog to ``(N, H, W, C')`` in the bundle's bands, unit and stretch.

        ``pixel_scale_arcsec`` has N values where `needs_pixel_scale`.
        """
        if self._flip:
            batch = batch.flip(1)
        if self.stretch is not None:
            return stretched(batch, self._image, self.stretch, pixel_scale_arcsec)
        batch = select_bands(batch, self._positions)
        return batch if self._factor == 1.0 else batch.float() * self._factor

    def __call__(self, batch: torch.Tensor, pixel_scale_arcsec: Any = None) -> torch.Tensor:
        """``(N, H, W, C)`` of the catalog to ``(N, channels, size, size)`` float32 for the encoder."""
        if self.stretch is not None and self.stretch.preset.pointwise:
            cropped = crop_pixels(batch, self.contract.crop)
            return finish(self.pixels(cropped, pixel_scale_arcsec), self.contract)
        return prepare(self.pixels(batch, pixel_scale_arcsec), self.contract)


def mismatches(
    contract: InputContract,
    image: ImageSpec,
    pixel_scale_arcsec: float | None = None,
    has_pixel_scale: bool = False,
) -> list[str]:
    """List the ways in which a catalog is not what a bundle was trained on, and cannot be made so.

    Parameters
    ----------
    contract : InputContract
        The bundle's input.
    image : ImageSpec
        The catalog's pixels.
    pixel_scale_arcsec : float, optional
        Typical pixel scale of the catalog, when it is known.
    has_pixel_scale : bool
        Its rows say their pixel scale.

    Returns
    -------
    list of str
        Empty when the catalog is inside the contract.
    """
    found = []
    stretch = _stretch_to_make(contract, image)
    if stretch is not None:
        found += stretch_problems(image, stretch, has_pixel_scale)
    elif (contract.stretch, image.stretch) != ("display", "none") and (
        missing := contract.missing_bands(tuple(image.bands))
    ):
        found.append(
            f"there is no band {', '.join(missing)}: bands are {', '.join(image.bands)}; "
            f"the bundle needs {', '.join(contract.bands)}"
        )
    if stretch is None:
        found += _pixel_problems(contract, image)
    if contract.orientation is not None and image.orientation is None:
        found.append(
            f"the orientation of the cutouts is not known; the bundle was shown {contract.orientation} ones"
        )
    if pixel_scale_arcsec is not None and contract.field_of_view_arcsec is not None:
        view = pixel_scale_arcsec * min(image.shape[:2])
        low, high = contract.field_of_view_arcsec
        if not low <= view <= high:
            found.append(f"field of view is {view:.3g} arcsec; the bundle was trained on {low:g} to {high:g}")
    return found


def complete(contract: InputContract, image: ImageSpec) -> InputContract:
    """State in full what a bundle is trained on: all parameters of the stretch, and the unit of flux.

    Raises
    ------
    UsageError, InputError
        For an unknown stretch or parameter, or bands that are not those the stretch makes.
    """
    if contract.stretch == "none" and contract.unit is None and contract.zeropoint is None:
        return replace(contract, unit=image.unit, zeropoint=image.zeropoint)
    if contract.stretch not in PRESETS:
        return contract
    stretch = find_stretch(contract.stretch, contract.stretch_parameters)
    if contract.bands != (made := stretch.channels(contract.bands)):
        raise InputError(
            f"the stretch {stretch.name} makes the channels {', '.join(made)}; bands are {', '.join(contract.bands)}",
            where="train.bands",
            fix=f"use train.bands=[{','.join(made)}]",
        )
    return replace(contract, stretch_parameters=stretch.parameters, stretch_version=stretch.version)


def _stretch_to_make(contract: InputContract, image: ImageSpec) -> Stretch | None:
    """The stretch that the catalog's flux still needs; None where it needs none, or holds no flux."""
    if image.stretch != "none" or contract.stretch not in PRESETS:
        return None
    made = find_stretch(contract.stretch, contract.stretch_parameters, contract.stretch_version)
    if made.bands is None:
        made = find_stretch(made.name, made.parameters | {"bands": contract.bands}, made.version)
    return made


def _pixel_problems(contract: InputContract, image: ImageSpec) -> list[str]:
    """How pixels that are taken as they are differ from the bundle's."""
    if contract.stretch == "display":
        return [_needs_display(image)] if image.stretch == "none" else []
    if contract.stretch != image.stretch:
        known = contract.stretch in (*PRESETS, "none")
        hint = "" if known else f".{did_you_mean(contract.stretch, PRESETS)}"
        return [f"stretch is {image.stretch}; the bundle needs {contract.stretch}{hint}"]
    if contract.stretch == "none":
        said = (contract.unit, contract.zeropoint) != (None, None)
        unknown = said and (contract.unit, contract.zeropoint) != (image.unit, image.zeropoint)
        if unknown and _factor(contract, image) is None:
            return [
                f"the flux is in {_unit(image.unit, image.zeropoint)}; the bundle was trained on "
                f"{_unit(contract.unit, contract.zeropoint)}"
            ]
        return []
    return _parameter_problems(contract, image)


def _needs_display(image: ImageSpec) -> str:
    """Say that pixels are flux, and with what flags ingest makes display images of them."""
    names = display_stretches(image)
    how = f"ingest the tiles with --stretch {' or '.join(names)} --dtype uint8"
    if not names:
        how = f"no preset makes them of {', '.join(image.bands)} in {_unit(image.unit, image.zeropoint)}"
    return f"pixels are flux (stretch none); the bundle needs display images: {how}"


def _parameter_problems(contract: InputContract, image: ImageSpec) -> list[str]:
    """How two stretches of one name differ."""
    theirs, ours = (
        (dict(s.stretch_parameters), s.stretch_version)
        if s.stretch not in PRESETS
        else (dict(PRESETS[s.stretch].defaults | s.stretch_parameters), s.stretch_version)
        for s in (image, contract)
    )
    found = []
    if theirs[1] != ours[1]:
        found.append(
            f"the catalog was made by version {theirs[1]} of {image.stretch}; the bundle was trained on version {ours[1]}"
        )
    keys = sorted(k for k in theirs[0].keys() | ours[0].keys() if k != "bands")
    return found + [
        f"{image.stretch} was made with {key}={theirs[0].get(key)}; the bundle was trained on {ours[0].get(key)}"
        for key in keys
        if theirs[0].get(key) != ours[0].get(key)
    ]


def _factor(contract: InputContract, image: ImageSpec) -> float | None:
    """What flux is multiplied by to be in the bundle's unit; None when that is not known."""
    if contract.stretch != "none" or image.stretch != "none":
        return 1.0
    said = (contract.unit, contract.zeropoint)
    if said == (None, None) or said == (image.unit, image.zeropoint):
        return 1.0
    ours, theirs = nanomaggies_per_unit(*said), nanomaggies_per_unit(image.unit, image.zeropoint)
    return None if ours is None or theirs is None else theirs / ours


def _unit(unit: str | None, zeropoint: float | None) -> str:
    said = unit or "an unknown unit"
    return said if zeropoint is None else f"{said} of zero point {zeropoint:g}"
