"""What is known of a tile before its pixels are read: plain data that travels to workers and into plans."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Plane:
    """One two-dimensional array in a FITS file.

    Attributes
    ----------
    uri : str
        Path or URL of the file.
    hdu : int
        Number of the header-data unit, 0 for the primary one.
    slice : int
        Which image of a cube (axis 3), 0 when there are two axes.
    shape : (int, int)
        Rows and columns.
    bitpix : int
        FITS type of the numbers: 8, 16, 32, 64, -32, -64.
    offset : int
        Bytes before the data, in the file as it is after gzip or bzip2.
    packing : str
        ``plain``, or ``gzip`` or ``bzip2`` for a file that is packed as a whole.
    blocks : (int, int) or None
        Rows and columns of the blocks of a tile-compressed image, which are unpacked one by one.
    bscale, bzero : float
        Physical value = bscale * number + bzero.
    blank : int or None
        Number that stands for no value in integer images.
    bytes : int
        What the plane occupies in the file (with the whole file packed: the file).
    version : (int, str)
        Size and version of the file: modification time or ETag.
    """

    uri: str
    hdu: int
    slice: int
    shape: tuple[int, int]
    bitpix: int
    offset: int
    packing: str
    blocks: tuple[int, int] | None
    bscale: float
    bzero: float
    blank: int | None
    bytes: int
    version: tuple[int, str]


@dataclass(frozen=True)
class Band:
    """One band of a tile.

    Attributes
    ----------
    name : str
    image : Plane or None
        None when the file is not there: a missing band.
    zeropoint : float
        AB magnitude of one unit of the image.
    saturation : float or None
        Level, in units of the image, at and above which a pixel is saturated.
    psf_fwhm_arcsec : float or None
    weight, mask, psf : Plane or None
        Weights, bit mask and map of the PSF's FWHM in arcsec, when the layout names them.
    weight_kind : str
        What the weights are: ``ivar``, ``variance`` or ``rms``.
    saturated_bits : int
        Bits of the mask that say that a pixel is saturated.
    wcs : str
        Header cards of the band's own WCS when it is on another grid than the tile; empty otherwise.
    """

    name: str
    image: Plane | None
    zeropoint: float = 0.0
    saturation: float | None = None
    psf_fwhm_arcsec: float | None = None
    weight: Plane | None = None
    mask: Plane | None = None
    psf: Plane | None = None
    weight_kind: str = "ivar"
    saturated_bits: int = 0
    wcs: str = ""


@dataclass(frozen=True)
class Tile:
    """A tile with its bands on one grid.

    Attributes
    ----------
    name : str
        What the pattern's placeholders stand for.
    bands : tuple of Band
        In the order asked for.
    shape : (int, int)
        Rows and columns; (0, 0) when nothing could be read.
    wcs : str
        Header cards of the celestial WCS; empty when there is none.
    pixel_scale_arcsec : float
        At the centre; NaN without a WCS.
    corners : tuple of (float, float)
        RA and Dec (ICRS degrees) of the four outer corners; empty without a WCS.
    centre : (float, float)
        RA and Dec of the centre.
    radius_deg : float
        Every pixel of the tile is within this distance of the centre.
    suspect_wcs : str
        Why positions are not to be trusted (quality bit BAD_WCS); empty when they are.
    problem : (str, str)
        Reason and detail when no source of this tile can become a cutout; empty strings otherwise.
    """

    name: str
    bands: tuple[Band, ...]
    shape: tuple[int, int] = (0, 0)
    wcs: str = ""
    pixel_scale_arcsec: float = float("nan")
    corners: tuple[tuple[float, float], ...] = ()
    centre: tuple[float, float] = (float("nan"), float("nan"))
    radius_deg: float = 0.0
    suspect_wcs: str = ""
    problem: tuple[str, str] = ("", "")

    @property
    def bytes(self) -> int:
        """What its planes occupy in files; a file that is packed whole counts once."""
        whole = {p.uri: p.bytes for p in self.planes() if p.packing != "plain"}
        return sum(whole.values()) + sum(p.bytes for p in self.planes() if p.uri not in whole)

    @property
    def version(self) -> list[tuple[str, int, str]]:
        """Address, size and version of every file, which `cut_tile` pins."""
        return sorted({(p.uri, *p.version) for p in self.planes()})

    def planes(self) -> list[Plane]:
        """All arrays of the tile."""
        found = [p for b in self.bands for p in (b.image, b.weight, b.mask, b.psf)]
        return [p for p in found if p is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Tile:
        """Build from the JSON form."""
        value = dict(value)
        value["bands"] = tuple(_band(b) for b in value["bands"])
        value["corners"] = tuple((a, b) for a, b in value["corners"])
        for name in ("shape", "centre", "problem"):
            value[name] = tuple(value[name])
        return cls(**value)


def _band(value: dict[str, Any]) -> Band:
    planes = {n: _plane(value[n]) for n in ("image", "weight", "mask", "psf")}
    return Band(**(value | planes))


def _plane(value: dict[str, Any] | None) -> Plane | None:
    if value is None:
        return None
    pairs = {n: tuple(value[n]) for n in ("shape", "version", "blocks") if value[n] is not None}
    return Plane(**(value | pairs))
