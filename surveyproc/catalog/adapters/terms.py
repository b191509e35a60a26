"""From what a file and the user say to the description of the pixels."""

from __future__ import annotations

import itertools
import math

import pyarrow as pa

from surveyproc.catalog.adapters.given import Given
from surveyproc.catalog.adapters.needs import Needs
from surveyproc.cutouts import DISPLAY_BANDS, ImageSpec
from surveyproc.errors import InputError

_SSL_LEGACYSURVEY = (3, 152, 152)
_DTYPES = {
    pa.uint8(): "uint8",
    pa.float16(): "float16",
    pa.float32(): "float32",
    pa.float64(): "float32",
}


def raw_spec(
    needs: Needs,
    number: pa.DataType,
    axes: tuple[int, ...] | None,
    names: tuple[str, ...] | None = None,
    size: int | None = None,
) -> tuple[ImageSpec | None, tuple[int, ...]]:
    """Describe raw pixels; what is missing is noted.

    Parameters
    ----------
    needs : Needs
    number : pyarrow.DataType
        Type of a pixel in the file.
    axes : tuple of int or None
        Of one cutout, as the file has them; None when it does not tell.
    names : tuple of str, optional
        Of the axes, where they are named.
    size : int, optional
        How many numbers a cutout has, for the message.

    Returns
    -------
    spec : ImageSpec or None
        None when something is missing.
    axes : tuple of int
        Of one cutout, in the order of the file.
    """
    given = needs.given or Given()
    axes = _axes(needs, axes, given, size)
    placed = _place(needs, axes, names, given) if axes else None
    dtype = _dtype(needs, number, given)
    channels = placed[0][2] if placed else None
    bands = _bands(needs, axes, channels, given, dtype)
    stretch = _stretch(needs, given, dtype)
    if placed is None or dtype is None or bands is None or stretch is None:
        return None, axes or ()
    spec = ImageSpec(
        "raw", placed[0], dtype, placed[1], bands, given.unit, given.magnitude_of_one, stretch=stretch
    )
    return spec, axes or ()


def _axes(
    needs: Needs, found: tuple[int, ...] | None, given: Given, size: int | None
) -> tuple[int, ...] | None:
    if given.shape is None:
        if found is None:
            holds = f": each is {size} numbers" if size else ""
            needs.add(f"the file does not say the shape of a cutout{holds}", "--shape H,W,C")
        return found
    told = math.prod(found) if found else size
    if told and told != math.prod(given.shape):
        raise InputError(
            f"--shape {','.join(map(str, given.shape))} is {math.prod(given.shape)} numbers, a cutout of the file has {told}",
            where=needs.uri,
            fix="give the axes in the order in which the file has them",
        )
    return given.shape


def _place(
    needs: Needs, axes: tuple[int, ...], names: tuple[str, ...] | None, given: Given
) -> tuple[tuple[int, int, int], str] | None:
    """Say height, width and channels, and the layout; only where no other reading makes sense."""
    if len(axes) == 2:
        return (axes[0], axes[1], 1), "HWC"
    if len(axes) != 3:
        needs.add(
            f"a cutout has {len(axes)} axes ({' x '.join(map(str, axes))}); two or three are read",
            "--shape H,W,C",
        )
        return None
    layout = given.layout
    if layout is None and names and sorted(n.upper() for n in names) == ["C", "H", "W"]:
        layout = "".join(names).upper()
    if layout is None:
        square_first = axes[0] == axes[1] > axes[2]
        square_last = axes[1] == axes[2] > axes[0]
        layout = "HWC" if square_first else "CHW" if square_last else None
    if layout == "HWC":
        return (axes[0], axes[1], axes[2]), layout
    if layout == "CHW":
        return (axes[1], axes[2], axes[0]), layout
    needs.add(f"which axis of {' x '.join(map(str, axes))} are the bands: HWC or CHW?", "--layout LAYOUT")
    return None


def _dtype(needs: Needs, number: pa.DataType, given: Given) -> str | None:
    if number in _DTYPES:
        return _DTYPES[number]
    if given.dtype is None:
        needs.add(
            f"pixels are {number}: display values from 0 to 255 (--dtype uint8), or flux (--dtype float32)?",
            "--dtype DTYPE",
        )
    return given.dtype


def _bands(
    needs: Needs, axes: tuple[int, ...] | None, channels: int | None, given: Given, dtype: str | None
) -> tuple[str, ...] | None:
    if given.bands is None:
        if channels == 3 and dtype == "uint8":
            return DISPLAY_BANDS
        if channels is not None:
            names = ",".join(itertools.islice((f"BAND{n}" for n in itertools.count(1)), channels))
            like = " (ssl-legacysurvey has g,r,z in nanomaggy)" if axes == _SSL_LEGACYSURVEY else ""
            needs.add(
                f"the file does not name its {channels} band{'s' * (channels != 1)}{like}", f"--bands {names}"
            )
        elif dtype != "uint8":
            needs.add("the file does not name its bands", "--bands BAND1,...")
        return None
    if channels is not None and len(given.bands) != channels:
        raise InputError(
            f"--bands names {len(given.bands)} bands, the cutouts have {channels}",
            where=needs.uri,
            fix="name each channel, in the order of the file",
        )
    return given.bands


def _stretch(needs: Needs, given: Given, dtype: str | None) -> str | None:
    if given.stretch is not None:
        return given.stretch
    if given.unit is not None:
        return "none"
    if dtype == "uint8":
        return "display"
    if dtype is not None:
        needs.add(
            "the file does not say what the pixels are: flux in which unit (--unit), or display images "
            "(--stretch display)?",
            "--unit UNIT",
        )
    return None
