"""The named stretches: their functions, bands, parameters and versions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from surveyproc.cutouts import DISPLAY_BANDS, Parameters
from surveyproc.errors import UsageError, did_you_mean
from surveyproc.images.stretches import galaxy_zoo, lupton, percentiles


@dataclass(frozen=True)
class Preset:
    """One stretch as it is published.

    Attributes
    ----------
    function : callable
        ``(..., C, H, W)`` flux and the parameters to ``(..., H, W, C)`` uint8.
    version : int
        Raised whenever the same flux would give other bytes.
    defaults : dict
        Parameters. ``bands`` are the catalog's names of the bands in the function's order, None for all that there are;
        ``pixel_arcsec`` is the side of the pixel that flux is brought to, None for the cutout's own.
    colour : bool
        The result is R, G, B; otherwise one channel for each band, of its name.
    band_counts : tuple of int
        How many bands it takes; empty for any number.
    flux_unit : bool
        Flux is in nanomaggies; otherwise any unit will do.
    pointwise : bool
        A pixel's bytes depend on that pixel alone, so that crop and stretch may change places.
    """

    function: Callable[..., Any]
    version: int
    defaults: Parameters
    colour: bool = True
    band_counts: tuple[int, ...] = (3,)
    flux_unit: bool = True
    pointwise: bool = True


_LEGACY = {"scales": lupton.LEGACY_SCALES, "m": lupton.LEGACY_OFFSET, "q": lupton.LEGACY_SOFTENING}
_GRZ = {"bands": ("g", "r", "z"), "pixel_arcsec": None}

PRESETS = {
    "legacy_lupton": Preset(lupton.legacy_lupton, 1, Parameters(_GRZ | _LEGACY)),
    "ssl_legacysurvey": Preset(lupton.ssl_legacysurvey, 1, Parameters(_GRZ | _LEGACY)),
    "gz_decals": Preset(
        galaxy_zoo.gz_decals,
        1,
        Parameters(
            _GRZ
            | {
                "divisors": galaxy_zoo.DECALS_DIVISORS,
                "span": galaxy_zoo.DECALS_RANGE,
                "desaturation": galaxy_zoo.DECALS_DESATURATION,
            }
        ),
    ),
    "gz_euclid": Preset(
        galaxy_zoo.gz_euclid,
        1,
        Parameters(
            {
                "bands": ("VIS", "Y"),
                "pixel_arcsec": None,
                "q": galaxy_zoo.EUCLID_Q,
                "zeropoints": galaxy_zoo.EUCLID_ZEROPOINTS,
                "percent": galaxy_zoo.EUCLID_PERCENTILE,
            }
        ),
        band_counts=(1, 2),
        pointwise=False,
    ),
    "sdss_lupton": Preset(
        lupton.sdss_lupton,
        1,
        Parameters(
            {
                "bands": ("g", "r", "i"),
                "pixel_arcsec": lupton.SDSS_PIXEL_ARCSEC,
                "scales": lupton.SCALES,
                "minimum": 0.0,
                "slope": lupton.SLOPE,
                "softening": lupton.SOFTENING,
            }
        ),
    ),
    "asinh_percentile": Preset(
        percentiles.asinh_percentile,
        1,
        Parameters({"bands": None, "percent": percentiles.PERCENTILE, "scale": percentiles.SCALE}),
        colour=False,
        band_counts=(),
        flux_unit=False,
        pointwise=False,
    ),
}
STRETCHES = tuple(PRESETS)
ANY_SIGN = ("m", "minimum", "zeropoints")  # parameters that may be 0 or negative


@dataclass(frozen=True)
class Stretch:
    """A preset with all its parameters: two that are equal give the same bytes.

    Attributes
    ----------
    name : str
        One of `STRETCHES`.
    parameters : Parameters
        Complete.
    version : int
        Of the preset.
    """

    name: str
    parameters: Parameters
    version: int

    @property
    def preset(self) -> Preset:
        """What it is made of."""
        return PRESETS[self.name]

    @property
    def bands(self) -> tuple[str, ...] | None:
        """Bands of flux it takes, in order; None for all that there are."""
        return self.parameters["bands"]

    @property
    def pixel_arcsec(self) -> float | None:
        """Side of the pixel that flux is brought to; None for the cutout's own."""
        return self.parameters.get("pixel_arcsec")

    def channels(self, bands: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the channels it makes of flux in these bands."""
        return DISPLAY_BANDS if self.preset.colour else self.bands or bands

    def __call__(self, flux: Any) -> Any:
        """``(..., C, H, W)`` flux, of `bands`, in the preset's unit and pixel, to ``(..., H, W, C)`` uint8."""
        own = {k: v for k, v in self.parameters.items() if k not in ("bands", "pixel_arcsec")}
        return self.preset.function(flux, **own)


def find_stretch(
    name: str, parameters: Mapping[str, Any] | None = None, version: int | None = None
) -> Stretch:
    """Look up a preset.

    Parameters
    ----------
    name : str
        One of `STRETCHES`.
    parameters : mapping, optional
        Those that differ from the preset's own.
    version : int, optional
        The version that is needed; the current one when left out.

    Raises
    ------
    UsageError
        For an unknown name or parameter, a value of another kind, length or range, or a version this code does not have.
    """
    if name not in PRESETS:
        raise UsageError(
            f"there is no stretch {name!r}.{did_you_mean(name, (*STRETCHES, 'none'))}",
            where="stretch",
            fix=f"stretches: {', '.join(STRETCHES)}; none leaves flux as it is",
        )
    preset, given = PRESETS[name], Parameters(parameters or {})
    problems = [
        f"it has no parameter {key!r}.{did_you_mean(key, preset.defaults)}"
        for key in given
        if key not in preset.defaults
    ]
    known = Parameters(preset.defaults | {k: v for k, v in given.items() if k in preset.defaults})
    problems += [_problem(key, value, known, preset) for key, value in known.items()]
    if version not in (None, preset.version):
        problems.append(f"version {version} is needed and this code has version {preset.version}")
    if problems := [p for p in problems if p]:
        listed = ", ".join(f"{k}={v}" for k, v in preset.defaults.items())
        raise UsageError(
            f"stretch {name}: {'; '.join(problems)}",
            where="stretch_parameters",
            fix=f"its parameters are {listed}",
        )
    return Stretch(name, known, preset.version)


def _problem(key: str, value: Any, known: Parameters, preset: Preset) -> str:
    """What is wrong with one parameter, or nothing."""
    usual, counts = preset.defaults[key], preset.band_counts
    if key == "bands":
        if (usual is None and value is None) or _are_bands(value, counts):
            return ""
        return f"bands={value!r} is not {' or '.join(map(str, counts)) or 'a list of'} names of bands"
    if key == "pixel_arcsec":
        return (
            "" if value is None or (_is_number(value) and value > 0) else f"pixel_arcsec={value!r} is no size"
        )
    if isinstance(usual, tuple):
        wanted = len(known["bands"]) if key != "span" and _are_bands(known["bands"], counts) else len(usual)
        if not (isinstance(value, tuple) and len(value) == wanted and all(map(_is_number, value))):
            return f"{key}={value!r} is not {wanted} numbers"
        if key == "span":
            return "" if value[0] < value[1] else f"span={value!r} does not go from a lower to a higher value"
    elif not _is_number(value):
        return f"{key}={value!r} is no number"
    lowest = min(value) if isinstance(value, tuple) else value
    if key not in ANY_SIGN and lowest <= 0:
        return f"{key}={value!r} is not above 0"
    return "" if key != "percent" or value <= 100 else f"percent={value} is not in (0, 100]"


def _are_bands(value: Any, counts: tuple[int, ...]) -> bool:
    names = isinstance(value, tuple) and bool(value) and all(isinstance(b, str) for b in value)
    return names and (not counts or len(value) in counts)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
