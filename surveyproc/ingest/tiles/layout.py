"""Which files make a tile: patterns with placeholders, and presets that know a survey's layout."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from surveyproc.errors import InputError, UsageError
from surveyproc.ingest.tiles.units import FLUX_KEYS, MAGNITUDE_KEYS
from surveyproc.stores import explain_store_errors, filesystem, is_local

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
PLANES = ("weight", "mask", "psf")


@dataclass(frozen=True)
class Layout:
    """How the tiles of a survey lie in files.

    Attributes
    ----------
    pattern : str
        Path or URL with placeholders: ``{band}``, and any others, which together name the tile; ``*`` and
        ``?`` stand for anything within a name. Without ``{band}`` one file holds all bands.
    bands : tuple of str
        Bands to read, in order.
    band_names : mapping of str to str
        What a band is called in file names, when that is not its own name.
    hdu : int or str or None
        Number or EXTNAME of the image; None takes the first image. ``{band}`` in it stands for the band.
    zeropoint_keys : tuple of str
        Header keywords of the AB zero point.
    zeropoints : mapping of str to float
        AB magnitude of one unit of the image by band, which stands before any header.
    saturation_keys, psf_keys : tuple of str
        Keywords of the saturation level (units of the image) and of the PSF's FWHM in arcsec.
    pixel_scale_arcsec : float or None
        What the pixel scale should be.
    resample : bool
        Accept bands on different grids: they are resampled to that of the first.
    """

    pattern: str
    bands: tuple[str, ...]
    band_names: Mapping[str, str] = field(default_factory=dict)
    hdu: int | str | None = None
    zeropoint_keys: tuple[str, ...] = MAGNITUDE_KEYS + FLUX_KEYS
    zeropoints: Mapping[str, float] = field(default_factory=dict)
    saturation_keys: tuple[str, ...] = ("SATURATE",)
    psf_keys: tuple[str, ...] = ()
    pixel_scale_arcsec: float | None = None
    resample: bool = False

    @property
    def one_file(self) -> bool:
        """Whether one file holds all bands of a tile."""
        return "{band}" not in self.pattern


def read_layout(
    pattern: str,
    bands: Sequence[str],
    *,
    zeropoints: Mapping[str, float] | None = None,
    pixel_scale_arcsec: float | None = None,
    hdu: int | str | None = None,
    resample: bool = False,
) -> Layout:
    """Make a layout of what the user said.

    Raises
    ------
    UsageError
        For a pattern or bands that cannot be meant.
    """
    unknown = sorted(set(zeropoints or {}) - set(bands))
    if not bands or len(set(bands)) != len(bands):
        raise UsageError(
            "--bands names each band once", where=",".join(bands), fix="for example --bands g,r,i"
        )
    if unknown:
        raise UsageError(
            f"a zero point is given for {', '.join(unknown)}, which --bands does not name",
            where="--zeropoint",
            fix=f"bands are {', '.join(bands)}",
        )
    return Layout(
        pattern=pattern,
        bands=tuple(bands),
        zeropoints=dict(zeropoints or {}),
        pixel_scale_arcsec=pixel_scale_arcsec,
        hdu=hdu,
        resample=resample,
    )


def match_files(layout: Layout) -> dict[str, dict[str, str]]:
    """Find the files of a layout.

    Returns
    -------
    dict of str to dict of str to str
        Tile name to band to path or URL; in a layout of one file per tile every band has that file.

    Raises
    ------
    InputError
        When no file matches, or two files claim to be the same band of a tile.
    """
    expression = _expression(layout)
    tiles: dict[str, dict[str, str]] = {}
    listed = _list(layout.pattern)
    for uri, path in listed:
        match = expression.fullmatch(path)
        if match is None:
            continue
        found = match.groupdict()
        band = _band_of(layout, found.pop("band", None))
        name = "-".join(found.values()) or _plain_name(layout.pattern)
        files = tiles.setdefault(name, {})
        for each in layout.bands if band is None else (band,):
            if each in files:
                raise InputError(
                    f"two files for band {each} of tile {name}",
                    where=f"{files[each]} and {uri}",
                    fix="make the pattern name one of them",
                )
            files[each] = uri
    if not tiles:
        examples = ", ".join(uri for uri, _ in listed[:3]) or "nothing"
        raise InputError(
            "no file matches the pattern of --tiles",
            where=f"{layout.pattern} with bands {', '.join(layout.bands)}; found there: {examples}",
            fix="placeholders are {tile} and {band}, quoted so that the shell leaves them alone: 'DIR/{tile}_{band}.fits'",
        )
    return dict(sorted(tiles.items()))


def _band_of(layout: Layout, text: str | None) -> str | None:
    if text is None:
        return None
    return next(band for band in layout.bands if layout.band_names.get(band, band) == text)


def _list(pattern: str) -> list[tuple[str, str]]:
    """Files below the part of a pattern without placeholders: address to open and path to match."""
    fixed = re.split(r"[{*?]", pattern, maxsplit=1)[0]
    folder = fixed.rsplit("/", 1)[0] if "/" in fixed else "."
    found, root = filesystem(folder or "/")
    depth = pattern.count("/") - fixed.count("/") + 1
    with explain_store_errors(folder):
        paths = sorted(found.find(root, maxdepth=depth))
    if is_local(found):
        return [(path, path) for path in paths]
    return [(found.unstrip_protocol(path), path) for path in paths]


def _expression(layout: Layout) -> re.Pattern[str]:
    """Pattern as a regular expression of full paths."""
    _, path = filesystem(layout.pattern)
    names = [layout.band_names.get(band, band) for band in layout.bands]
    pieces, seen = [], set()
    position = 0
    for match in _PLACEHOLDER.finditer(path):
        pieces.append(_wild(path[position : match.start()]))
        name = match.group(1)
        if name in seen:
            pieces.append(f"(?P={name})")
        elif name == "band":
            pieces.append(f"(?P<band>{'|'.join(re.escape(n) for n in names)})")
        else:
            pieces.append(f"(?P<{name}>[^/]+)")
        seen.add(name)
        position = match.end()
    pieces.append(_wild(path[position:]))
    return re.compile("".join(pieces))


def _wild(text: str) -> str:
    translated = fnmatch.translate(text)
    inner = re.sub(r"^\(\?s:|\)\\[zZ]$", "", translated)
    return inner.replace(".*", "[^/]*") if "*" in text else inner


def _plain_name(pattern: str) -> str:
    last = pattern.rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9]+", "_", _PLACEHOLDER.sub("", last).split(".fit")[0]).strip("_") or "tile"
