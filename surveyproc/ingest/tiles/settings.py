"""What the cutouts of a catalog shall be."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from surveyproc.catalog.pixels import image_field
from surveyproc.columns import known
from surveyproc.cutouts import ImageSpec
from surveyproc.errors import UsageError, did_you_mean
from surveyproc.ingest.tiles.display import stretched_image_spec
from surveyproc.ingest.tiles.tile import Tile
from surveyproc.ingest.tiles.units import output_zeropoint

MAX_SIZE = 4096
BATCH_BYTES = 16 << 20
PLANE_KEY = b"surveyproc.plane"


@dataclass(frozen=True)
class CutSettings:
    """What is cut.

    Attributes
    ----------
    bands : tuple of str
        Channels in order.
    size : int
        Side of a cutout in pixels.
    dtype : str
        ``float32``, ``float16``, or ``uint8`` with a stretch.
    unit : str
        Flux unit of the pixels: ``nJy``, ``nanomaggy``, ``uJy``, ``mJy``, ``Jy`` or ``maggy``.
    stretch : str
        ``none``, or the preset that makes uint8.
    size_column : str or None
        Column of the sources with the field of view in arcsec: every cutout then covers its own field,
        resampled to ``size`` pixels.
    planes : tuple of str
        Of ``weight`` (column of inverse variances), ``mask`` (column of bit masks) and ``psf`` (the PSF's width is
        read from a map), which the layout has to know.
    batch_bytes : int
        Bytes of pixels that one batch may hold.
    """

    bands: tuple[str, ...]
    size: int = 64
    dtype: str = "float32"
    unit: str = "nJy"
    stretch: str = "none"
    size_column: str | None = None
    planes: tuple[str, ...] = ()
    batch_bytes: int = BATCH_BYTES

    def __post_init__(self) -> None:
        output_zeropoint(self.unit)
        if not 1 <= self.size <= MAX_SIZE:
            raise UsageError(f"a cutout of {self.size} pixels", where="--size", fix=f"1 to {MAX_SIZE}")
        if self.dtype not in ("float32", "float16", "uint8"):
            raise UsageError(
                f"unknown pixel type {self.dtype!r}.{did_you_mean(self.dtype, ('float32', 'float16', 'uint8'))}",
                where="--dtype",
                fix="float32, float16 or uint8",
            )
        if (self.dtype == "uint8") != (self.stretch != "none"):
            raise UsageError(
                "uint8 cutouts need a stretch, and stretched cutouts are uint8",
                where=f"--dtype {self.dtype} --stretch {self.stretch}",
                fix="for example --dtype uint8 --stretch sdss_lupton, or leave both out for flux",
            )

    @property
    def working_bytes(self) -> int:
        """Memory of one source while it is cut."""
        planes = 1 + sum(plane in self.planes for plane in ("weight", "mask")) + (self.stretch != "none")
        return planes * 4 * len(self.bands) * self.size**2

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


def image_spec(settings: CutSettings, tiles: Sequence[Tile] = ()) -> ImageSpec:
    """Describe the pixels of the catalog: flux is stored band by band (CHW), stretched images pixel by pixel.

    Raises
    ------
    UsageError
        When the stretch cannot be made of these bands.
    """
    flux = flux_spec(settings)
    return flux if settings.stretch == "none" else stretched_image_spec(settings.stretch, flux)


def flux_spec(settings: CutSettings) -> ImageSpec:
    """Describe the flux that is cut, before any stretch."""
    return ImageSpec(
        encoding="raw",
        shape=(settings.size, settings.size, len(settings.bands)),
        dtype="float32" if settings.dtype == "uint8" else settings.dtype,
        layout="CHW",
        bands=settings.bands,
        unit=settings.unit,
        zeropoint=output_zeropoint(settings.unit),
        stretch="none",
        orientation="bottom-up",
    )


def row_schema(settings: CutSettings, tiles: Sequence[Tile], sources: pa.Schema) -> pa.Schema:
    """Columns of the rows that `cut_tile` gives: those of the sources, then ours.

    Parameters
    ----------
    settings : CutSettings
    tiles : sequence of Tile
    sources : pyarrow.Schema
        Columns of the sources; a column ``quality`` comes back with our bits added.

    Raises
    ------
    UsageError
        When a column of the sources has the name of one of ours.
    """
    given = [field for field in sources if field.name != "quality"]
    planes = [_plane_field(plane, settings) for plane in ("weight", "mask") if plane in settings.planes]
    own = [*_row_fields(len(settings.bands)), *planes, image_field(image_spec(settings, tiles))]
    taken = sorted({field.name for field in own} & {field.name for field in given})
    if taken:
        raise UsageError(
            f"the catalog has columns {', '.join(taken)} of its own",
            where="columns of the sources",
            fix="rename them in the table, or do not carry them",
        )
    return pa.schema([*given, *own])


def _row_fields(bands: int) -> list[pa.Field]:
    numbers = ("x0", "y0", "cd11", "cd12", "cd21", "cd22", "pixel_scale_arcsec")
    return [
        known("quality", pa.int32()),
        *(known(name, pa.float64()) for name in numbers),
        known("psf_fwhm_arcsec", pa.list_(pa.float32(), bands)),
    ]


def _plane_field(plane: str, settings: CutSettings) -> pa.Field:
    kind = {"weight": "float32", "mask": "int32"}[plane]
    shape = [len(settings.bands), settings.size, settings.size]
    about: dict[str, Any] = {
        "kind": plane,
        "shape": shape,
        "dtype": kind,
        "layout": "CHW",
        "bands": settings.bands,
    }
    if plane == "weight":
        about |= {"unit": f"1/{settings.unit}^2", "means": "inverse variance; 0 is unknown"}
    else:
        about |= {"good": 0, "means": "bits of the survey's mask; negative where there are no data"}
    nbytes = 4 * math.prod(shape)
    return pa.field(plane, pa.binary(nbytes), metadata={PLANE_KEY: json.dumps(about, sort_keys=True)})
