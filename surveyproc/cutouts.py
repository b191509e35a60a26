"""What the pixels of a catalog are, and what pixels a model wants."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from surveyproc.errors import InputError

METADATA_KEY = b"surveyproc.image"
ENCODINGS = ("raw", "jpeg", "png")
DTYPES = ("uint8", "float16", "float32")
DISPLAY_BANDS = ("R", "G", "B")
ORIENTATIONS = ("bottom-up", "top-down")


class Parameters(dict[str, Any]):
    """Parameters of a stretch: a dictionary that is not changed once made, and can be hashed.

    Lists become tuples.
    """

    def __init__(self, values: Any = ()) -> None:
        super().__init__({k: tuple(v) if isinstance(v, list) else v for k, v in dict(values).items()})

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(sorted(self.items(), key=lambda item: item[0])))


@dataclass(frozen=True)
class ImageSpec:
    """The pixels of one cutout catalog: the JSON value of ``surveyproc.image`` on the ``image`` field.

    Attributes
    ----------
    encoding : str
        ``raw`` (bytes of one C-ordered array), ``jpeg`` or ``png``.
    shape : tuple of int
        Height, width, channels of every cutout, in pixels, whatever the layout.
    dtype : str
        ``uint8``, ``float16`` or ``float32``.
    layout : str
        ``HWC`` or ``CHW``: order of the axes in raw bytes.
    bands : tuple of str
        Name of each channel; ``R``, ``G``, ``B`` for display images.
    unit, zeropoint
        Flux unit and AB magnitude of one unit; None when the pixels are not flux.
    stretch : str
        Preset that made the pixels: ``none`` for flux, otherwise a name such as ``sdss_lupton``;
        ``display`` for images of an unknown display stretch.
    stretch_parameters, stretch_version
        Parameters of the preset that are not its own defaults, or all of them; and its version.
    orientation : str, optional
        ``bottom-up`` when row 0 has the lowest y of the FITS image, ``top-down`` when it is the top of a picture;
        None when it is not known.
    """

    encoding: str
    shape: tuple[int, int, int]
    dtype: str
    layout: str = "HWC"
    bands: tuple[str, ...] = DISPLAY_BANDS
    unit: str | None = None
    zeropoint: float | None = None
    stretch: str = "display"
    stretch_parameters: Parameters = field(default_factory=Parameters)
    stretch_version: int = 1
    orientation: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "stretch_parameters", Parameters(self.stretch_parameters))
        problems = _orientation_problems(self.orientation)
        if self.encoding not in ENCODINGS:
            problems.append(f"encoding {self.encoding!r} is not one of {', '.join(ENCODINGS)}")
        if self.dtype not in DTYPES:
            problems.append(f"dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")
        if self.layout not in ("HWC", "CHW"):
            problems.append(f"layout {self.layout!r} is not HWC or CHW")
        if len(self.shape) != 3 or min(self.shape, default=0) < 1:
            problems.append(f"shape {self.shape} is not (height, width, channels)")
        elif len(self.bands) != self.shape[2]:
            problems.append(f"{len(self.bands)} bands for {self.shape[2]} channels")
        if problems:
            raise InputError("wrong surveyproc.image metadata: " + "; ".join(problems))

    @property
    def nbytes(self) -> int:
        """Bytes of one raw cutout."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def to_json(self) -> str:
        """Serialise for the field's key-value metadata."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "") -> ImageSpec:
        """Parse the metadata value.

        Raises
        ------
        InputError
            When it is not JSON, lacks a key, or describes impossible pixels.
        """
        try:
            value: dict[str, Any] = json.loads(text)
            known = {f.name for f in dataclasses.fields(cls)}
            value = {k: v for k, v in value.items() if k in known}
            value["shape"], value["bands"] = tuple(value["shape"]), tuple(value["bands"])
            return cls(**value)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"the surveyproc.image metadata cannot be read: {error}",
                where=where,
                fix="write the catalog again with `surveyproc ingest`",
            ) from error
        except InputError as error:
            raise InputError(error.what, where=where, fix=error.fix) from error


@dataclass(frozen=True)
class InputContract:
    """The pixels a bundle was trained on (``input`` in its model.json).

    Attributes
    ----------
    bands : tuple of str
        Channels in order.
    size : int
        Side of the square the encoder sees, in pixels.
    crop : float
        Central fraction of the cutout's side that is kept before resizing to ``size``.
    stretch : str
        What the bundle sees: ``none`` for flux, the name of a preset, or ``display`` when any display image will do.
        Flux is stretched by the preset on the way to the encoder.
    stretch_parameters, stretch_version
        Of the preset, as in `ImageSpec`.
    unit, zeropoint
        For flux: the unit that ``softening``, ``mean`` and ``std`` are in; None takes flux as it comes.
    orientation : str, optional
        ``bottom-up`` or ``top-down`` as in `ImageSpec`, for an encoder that was shown one of them only.
    mean, std : float or tuple of float
        Normalisation applied to pixels scaled to [0, 1] (floats as they are); one value, or one per channel
        that the encoder sees.
    softening : float or tuple of float, optional
        For flux: ``asinh(flux / softening)`` comes before mean and std; in the catalog's unit.
    greyscale : bool
        The encoder sees the mean over the bands. A catalog of one band is its own mean.
    field_of_view_arcsec : (float, float) or None
        Plausible range of the cutout's side on the sky, before the crop.
    """

    bands: tuple[str, ...]
    size: int
    crop: float = 1.0
    stretch: str = "display"
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    field_of_view_arcsec: tuple[float, float] | None = None
    softening: float | tuple[float, ...] | None = None
    greyscale: bool = False
    stretch_parameters: Parameters = field(default_factory=Parameters)
    stretch_version: int = 1
    unit: str | None = None
    zeropoint: float | None = None
    orientation: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "stretch_parameters", Parameters(self.stretch_parameters or {}))
        if problems := _orientation_problems(self.orientation):
            raise InputError(f"input.{problems[0]}")
        for name, channels in (
            ("mean", self.channels),
            ("std", self.channels),
            ("softening", len(self.bands)),
        ):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != channels:
                raise InputError(f"input.{name} has {len(value)} values for {channels} channels")

    @property
    def channels(self) -> int:
        """Channels that the encoder sees."""
        return 1 if self.greyscale else len(self.bands)

    def band_positions(self, bands: tuple[str, ...]) -> list[int]:
        """Where the bundle's bands are among a catalog's, by name.

        When the names differ and their number is the same, which only ``--force-domain`` lets through, they are
        taken in their order.

        Raises
        ------
        InputError
            When bands are missing.
        """
        if self.greyscale and len(bands) == 1:
            return [0]
        if missing := self.missing_bands(bands):
            if len(bands) == len(self.bands):
                return list(range(len(bands)))
            raise InputError(
                f"the catalog has no band {', '.join(missing)}, which the bundle needs (it has {', '.join(bands)})",
                where="--input and --bundle",
                fix="choose a bundle of the catalog's bands: another number of channels cannot be forced",
            )
        return [bands.index(band) for band in self.bands]

    def missing_bands(self, bands: tuple[str, ...]) -> list[str]:
        """Bands of the bundle that are not among a catalog's; none where one band is the mean itself."""
        if self.greyscale and len(bands) == 1:
            return []
        return [band for band in self.bands if band not in bands]

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> InputContract:
        """Build from the ``input`` object of model.json."""
        known = {f.name for f in dataclasses.fields(cls)}
        value = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items() if k in known}
        return cls(**value)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def _orientation_problems(orientation: str | None) -> list[str]:
    if orientation is None or orientation in ORIENTATIONS:
        return []
    return [f"orientation {orientation!r} is not one of {', '.join(ORIENTATIONS)}"]
