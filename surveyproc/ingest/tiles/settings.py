"""What the cutouts of a catalog shall be."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from surveyproc.catalog.pixels import image_field
from surveyproc.cutouts import ImageSpec
from surveyproc.errors import UsageError, did_you_mean
from surveyproc.ingest.tiles.tile import Tile
from surveyproc.ingest.tiles.units import output_zeropoint

MAX_SIZE = 4096
BATCH_BYTES = 64 << 20


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
        Of ``weight`` and ``mask``: more columns.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


def image_spec(settings: CutSettings, tiles: Sequence[Tile] = ()) -> ImageSpec:
    """Describe the pixels of the catalog: flux is stored band by band (CHW)."""
    return ImageSpec(
        encoding="raw",
        shape=(settings.size, settings.size, len(settings.bands)),
        dtype=settings.dtype,
        layout="CHW",
        bands=settings.bands,
        unit=settings.unit,
        zeropoint=output_zeropoint(settings.unit),
        stretch="none",
    )


def row_schema(settings: CutSettings, tiles: Sequence[Tile], sources: pa.Schema) -> pa.Schema:
    """Columns of the rows that `cut_tile` gives: those of the sources, then ours.

    Parameters
    ----------
    settings : CutSettings
    tiles : sequence of Tile
    sources : pyarrow.Schema
        Columns of the sources; a column ``quality`` comes back with our bits added.
    """
    spec = image_spec(settings, tiles)
    given = [field for field in sources if field.name != "quality"]
    return pa.schema([*given, *_row_fields(len(settings.bands)), image_field(spec)])


def _row_fields(bands: int) -> list[pa.Field]:
    def described(name: str, kind: pa.DataType, unit: str, text: str) -> pa.Field:
        return pa.field(
            name, kind, metadata={"unit": unit, "description": text} if unit else {"description": text}
        )

    return [
        described("quality", pa.int32(), "", "Flaws, one bit each; 0 is none"),
        described("x0", pa.float64(), "pixel", "Column of ra, dec in the cutout, 0-based"),
        described("y0", pa.float64(), "pixel", "Row of ra, dec in the cutout, 0-based"),
        *(
            described(f"cd{i}{j}", pa.float64(), "deg", f"CD matrix at ra, dec: element {i}, {j}")
            for i in (1, 2)
            for j in (1, 2)
        ),
        described("pixel_scale_arcsec", pa.float64(), "arcsec", "Side of a pixel"),
        described("psf_fwhm_arcsec", pa.list_(pa.float32(), bands), "arcsec", "FWHM of the PSF in each band"),
    ]
