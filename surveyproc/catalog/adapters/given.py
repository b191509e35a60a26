"""What the user says of a foreign file, because the file does not."""

from __future__ import annotations

from dataclasses import dataclass

from surveyproc.cutouts import DTYPES
from surveyproc.errors import UsageError
from surveyproc.units import ZEROPOINTS

MASKS = ("bad", "clean")


@dataclass(frozen=True)
class Given:
    """Flags of ``surveyproc repack``; None where the file is to tell.

    Attributes
    ----------
    id, ra, dec, image : str, optional
        Columns that become ``object_id``, ``ra``, ``dec`` and ``image``.
    number_rows : bool
        Ids are the numbers of the rows, from 0, in the order of the files.
    bands : tuple of str, optional
        Name of each channel in order. For cutouts with named bands: which of them, ``FILE=NAME`` to rename.
    unit, zeropoint : str, float, optional
        Flux unit, and the AB magnitude of one unit; the zero point follows from the units of `ZEROPOINTS`.
    stretch : str, optional
        Stretch of pixels that are no flux.
    layout : str, optional
        ``HWC`` or ``CHW``.
    shape : tuple of int, optional
        Axes of one cutout in the order of the file.
    dtype : str, optional
        What integers wider than a byte are to become.
    mask : str, optional
        What True means in the masks of Multimodal Universe cutouts: ``bad`` or ``clean``. Bad pixels become
        NaN. Without it masks are not read.
    """

    id: str | None = None
    ra: str | None = None
    dec: str | None = None
    image: str | None = None
    number_rows: bool = False
    bands: tuple[str, ...] | None = None
    unit: str | None = None
    zeropoint: float | None = None
    stretch: str | None = None
    layout: str | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    mask: str | None = None

    def __post_init__(self) -> None:
        problems = []
        if (self.ra is None) != (self.dec is None):
            problems.append("--ra and --dec go together")
        if self.id is not None and self.number_rows:
            problems.append("--id and --number-rows exclude each other")
        if self.layout not in (None, "HWC", "CHW"):
            problems.append(f"--layout {self.layout} is not HWC or CHW")
        if self.shape is not None and (len(self.shape) not in (2, 3) or min(self.shape) < 1):
            problems.append(f"--shape {','.join(map(str, self.shape))} is not two or three numbers of pixels")
        if self.dtype is not None and self.dtype not in DTYPES:
            problems.append(f"--dtype {self.dtype} is not one of {', '.join(DTYPES)}")
        if self.mask not in (None, *MASKS):
            problems.append(f"--mask {self.mask} is not bad or clean: what True means in the file's masks")
        if self.stretch not in (None, "none") and (self.unit or self.zeropoint is not None):
            problems.append("--unit and --zeropoint are for flux, --stretch for display images")
        problems += self._flux_problems()
        if problems:
            raise UsageError("; ".join(problems), fix="see `surveyproc repack --help`")

    def _flux_problems(self) -> list[str]:
        if self.zeropoint is not None and self.unit is None:
            return ["--zeropoint needs --unit"]
        known = ZEROPOINTS.get(self.unit or "")
        if self.unit and known is None and self.zeropoint is None:
            return [
                f"--unit {self.unit} needs --zeropoint, the AB magnitude of one unit (units that do not: {', '.join(ZEROPOINTS)})"
            ]
        if known is not None and self.zeropoint not in (None, known):
            return [f"one {self.unit} is {known:g} mag by definition, not {self.zeropoint:g}"]
        return []

    @property
    def magnitude_of_one(self) -> float | None:
        """AB magnitude of one unit."""
        return self.zeropoint if self.zeropoint is not None else ZEROPOINTS.get(self.unit or "")

    @property
    def of_pixels(self) -> bool:
        """Whether anything is said of the pixels."""
        said = (self.bands, self.unit, self.stretch, self.layout, self.shape, self.mask)
        return any(value is not None for value in said)

    def stored_name(self, name: str) -> str:
        """Column of the file that is read as the standard column ``name``."""
        named = {"object_id": self.id, "ra": self.ra, "dec": self.dec}.get(name)
        return named if named is not None else name
