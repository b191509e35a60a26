"""Load one image of a folder and say what all of them are."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from surveyproc.catalog.fits import read_fits_image
from surveyproc.cutouts import DISPLAY_BANDS, ImageSpec
from surveyproc.errors import InputError, UsageError
from surveyproc.images.decode import BadImage, check_shape, decode_image, find_unusable
from surveyproc.ingest.files import kind_of
from surveyproc.ingest.tiles.bands import named_bands
from surveyproc.ingest.tiles.units import (
    FLUX_KEYS,
    MAGNITUDE_KEYS,
    disagreement,
    find_zeropoints,
    output_zeropoint,
    scale_factor,
)
from surveyproc.stores import read_file

RESIZE_METHOD = "PIL LANCZOS (antialiased)"
SAMPLE = 64
COUNTS = "counts"


@dataclass(frozen=True)
class FluxUnit:
    """How the pixels of FITS images become flux of one unit.

    Attributes
    ----------
    unit : str
        Of the catalog.
    zeropoints : mapping of str to float
        AB magnitude of one unit of the images by band; of other bands each file's header says it.
    as_they_are : bool
        The pixels are of that unit already, such as counts, and are not changed.
    """

    unit: str = "nJy"
    zeropoints: Mapping[str, float] = field(default_factory=dict)
    as_they_are: bool = False

    @property
    def zeropoint(self) -> float | None:
        """AB magnitude of one unit of the catalog; None when nobody says it."""
        return next(iter(self.zeropoints.values()), None) if self.as_they_are else output_zeropoint(self.unit)

    def factors(self, bands: Sequence[str], headers: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """What the channels of an image with these headers are multiplied by, shape (C,), float32.

        Raises
        ------
        BadImage
            When the unit of one of them is unknown, or headers contradict themselves or what is said.
        """
        found = find_zeropoints(headers)
        if self.as_they_are:
            given = {} if self.zeropoint is None else {f"{self.unit} as given": self.zeropoint}
            if given and (said := disagreement(given | found)):
                raise BadImage("unknown_unit", f"the header says another zero point: {said}")
            return np.ones(len(bands), np.float32)
        if all(band in self.zeropoints for band in bands):
            found = {}
        elif not found:
            raise BadImage(
                "unknown_unit", f"no flux unit in BUNIT, and none of {', '.join(MAGNITUDE_KEYS + FLUX_KEYS)}"
            )
        elif said := disagreement(found):
            raise BadImage("unknown_unit", f"the header contradicts itself on the zero point: {said}")
        read = next(iter(found.values()), 0.0)
        magnitudes = [self.zeropoints.get(band, read) for band in bands]
        return np.array([scale_factor(magnitude, self.unit) for magnitude in magnitudes], np.float32)


@dataclass(frozen=True)
class Loader:
    """How the images of a folder become values of the ``image`` column; safe to use from many threads.

    Attributes
    ----------
    spec : ImageSpec
        Pixels of the catalog.
    size : int or None
        Side to resize to.
    flux : FluxUnit or None
        Of FITS images.
    """

    spec: ImageSpec
    size: int | None = None
    flux: FluxUnit | None = None

    def load(self, path: str) -> bytes:
        """Read, decode and check one image.

        Returns
        -------
        bytes
            Raw pixels, or the file as it is when the catalog keeps encoded images.

        Raises
        ------
        BadImage
            When it cannot become a cutout of this catalog.
        """
        data = _read(path)
        if self.spec.encoding != "raw":
            pixels, _ = _pixels(path, data, self.spec.encoding)
        else:
            pixels, headers = _pixels(path, data)
        if self.size is not None:
            pixels = resized(pixels, self.size, self.spec.shape[2])
        check_shape(pixels.shape, self.spec.shape)
        if self.flux is not None:
            pixels = pixels * self.flux.factors(self.spec.bands, headers)
        for reason, detail in find_unusable(pixels[None]).values():
            raise BadImage(reason, detail)
        return pixels.tobytes() if self.spec.encoding == "raw" else data


def plan_loading(
    paths: Iterable[str],
    *,
    decode: bool,
    size: int | None,
    bands: tuple[str, ...] | None,
    flux: FluxUnit | None = None,
) -> Loader:
    """Decide what the catalog's pixels are from the names and the first good images.

    The shape is that of most of the first 64 images that can be read.

    Parameters
    ----------
    paths : iterable of str
        One image for each object, in table order.
    decode : bool
        Store raw pixels instead of the JPEG or PNG bytes.
    size : int, optional
        Resize to ``size`` by ``size`` pixels; with ``decode`` only.
    bands : tuple of str, optional
        Names of the channels.
    flux : FluxUnit, optional
        For FITS only; nJy by their headers when not given.

    Raises
    ------
    UsageError
        ``size`` without ``decode`` or with FITS; a flux unit of JPEG or PNG.
    InputError
        A mixture of kinds, no readable image, channels that need names, or FITS of unknown unit.
    """
    paths = list(paths)
    kinds = Counter(kind_of(path) for path in paths)
    kind = _one_kind(kinds, decode, paths)
    if size is not None and kind == "fits":
        raise UsageError(
            "--size is for JPEG and PNG; FITS pixels are kept as they are", fix="leave --size out"
        )
    if size is not None and not decode:
        raise UsageError("--size needs --decode: JPEG and PNG bytes are kept as they are", fix="add --decode")
    if size is not None and size < 1:
        raise UsageError(f"--size {size} is not a number of pixels", fix="give a size of 1 or more")
    if kind != "fits" and flux is not None:
        raise UsageError(
            "--unit and --zeropoint are for FITS: JPEG and PNG hold no flux", fix="leave them out"
        )
    shapes, headers = _sample(paths)
    (height, width, channels), _ = shapes.most_common(1)[0]
    shape = (size or height, size or width, channels)
    names = _band_names(channels, bands, kind, paths[0])
    if kind == "fits":
        flux = flux or FluxUnit()
        zeropoint = flux.zeropoint
        _require_units(flux, names, headers)
        spec = ImageSpec(
            "raw",
            shape,
            "float32",
            bands=names,
            unit=flux.unit,
            zeropoint=zeropoint,
            stretch="none",
            orientation="bottom-up",
        )
        return Loader(spec, flux=flux)
    encoding = "raw" if decode else kind
    return Loader(ImageSpec(encoding, shape, "uint8", bands=names, orientation="top-down"), size)


def _one_kind(kinds: Counter[str], decode: bool, paths: list[str]) -> str:
    if len(kinds) == 1 or (decode and "fits" not in kinds):
        return next(iter(kinds))
    found = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    mixed_fits = "fits" in kinds
    raise InputError(
        f"the folder mixes kinds of images: {found}",
        where=str(Path(paths[0]).parent),
        fix="ingest FITS and JPEG/PNG into catalogs of their own"
        if mixed_fits
        else "add --decode to store pixels",
    )


def _require_units(flux: FluxUnit, bands: tuple[str, ...], headers: dict[str, list[Any]]) -> None:
    """Refuse images whose headers do not say their unit, or say other bands."""
    for path, cards in headers.items():
        named = named_bands(cards[0], len(bands))
        if len(bands) > 1 and named and tuple(named) != bands:
            raise InputError(
                f"the header names the channels {', '.join(named)}, --bands {', '.join(bands)}",
                where=path,
                fix=f"give --bands {','.join(named)}",
            )
        try:
            flux.factors(bands, cards)
        except BadImage as error:
            raise InputError(
                f"the flux unit of the images is unknown: {error.detail}",
                where=path,
                fix="give the AB magnitude of one unit of the images, --zeropoint MAG, or keep the pixels as they are: "
                "--unit counts",
            ) from error


def _sample(paths: list[str]) -> tuple[Counter[tuple[int, int, int]], dict[str, list[Any]]]:
    """Shapes of the first images that can be read, and of FITS the headers by path."""
    shapes: Counter[tuple[int, int, int]] = Counter()
    headers: dict[str, list[Any]] = {}
    first: str | None = None
    for path in paths:
        try:
            pixels, headers[path] = _pixels(path, _read(path))
        except BadImage as error:
            first = first or f"{path}: {error.detail}"
            continue
        shapes[pixels.shape] += 1
        if len(headers) == SAMPLE:
            break
    if not shapes:
        raise InputError(
            f"none of the {len(paths)} images can be read",
            where=first or "",
            fix="open one of them to see what it is",
        )
    return shapes, headers


def _band_names(channels: int, bands: tuple[str, ...] | None, kind: str, where: str) -> tuple[str, ...]:
    if bands is None and channels == 3 and kind != "fits":
        return DISPLAY_BANDS
    if bands is None or len(bands) != channels:
        example = (
            ",".join(itertools.islice(itertools.cycle("griz"), channels)) if channels <= 4 else "g,r,..."
        )
        named = "have no names" if bands is None else f"do not fit --bands {','.join(bands)}"
        raise InputError(
            f"the images have {channels} channel{'s' * (channels != 1)}, which {named}",
            where=where,
            fix=f"name each channel in order, such as --bands {example}",
        )
    return bands


def _read(path: str) -> bytes:
    try:
        return read_file(path) if "://" in path else Path(path).read_bytes()
    except OSError as error:
        raise BadImage("unreadable_image", f"{error.strerror or error}") from error


def _pixels(path: str, data: bytes, encoding: str | None = None) -> tuple[np.ndarray, list[Any]]:
    if kind_of(path) != "fits":
        return decode_image(data, encoding), []
    try:
        return read_fits_image(data)
    except ValueError as error:
        raise BadImage("unreadable_image", str(error)) from error


def resized(pixels: np.ndarray, size: int, channels: int) -> np.ndarray:
    """Resize a square display image with PIL's LANCZOS filter.

    Raises
    ------
    BadImage
        When it is not square, or has other channels.
    """
    height, width, found = pixels.shape
    if found != channels:
        raise BadImage("wrong_channels", f"image has {found} channels, the catalog {channels}")
    if height != width:
        raise BadImage("wrong_shape", f"image is {height} x {width} px; --size {size} needs square images")
    if height == size:
        return pixels
    image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS)).reshape(size, size, channels)
