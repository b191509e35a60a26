"""Cutouts of the Multimodal Universe: a struct of lists with a value for each band.

``band`` (names), ``flux``, ``ivar`` and ``mask`` (2-D lists), ``psf_fwhm`` (arcsec) and ``scale`` (arcsec per
pixel); as a struct of lists, or a list of structs. The files say neither the flux unit (Legacy has nanomaggies,
HSC counts of zero point 27) nor whether True in a mask is bad or clean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from surveyproc.catalog.adapters.needs import Needs
from surveyproc.catalog.adapters.numbers import pack, storage_array, uniform_values
from surveyproc.cutouts import ImageSpec
from surveyproc.errors import InputError

SCALE, PSF = "pixel_scale_arcsec", "psf_fwhm_arcsec"
UNIT_UNKNOWN = (
    "{uri}: the file does not say the flux unit, which stays unknown (Legacy Survey cutouts of the Multimodal Universe "
    "are nanomaggies, HSC ones counts of zero point 27); to record it: {command}"
)
_SCALES_AGREE = 0.01


def children_of(kind: pa.DataType) -> set[str]:
    """Names of what each band has."""
    return {field.name for field in (kind if pa.types.is_struct(kind) else kind.value_type)}


def lists_of(column: pa.Array, child: str) -> pa.Array:
    """One list per row with the values of a child for each band."""
    column = storage_array(column)
    if pa.types.is_struct(column.type):
        return pc.struct_field(column, child)
    offsets = pa.array(column.offsets.to_numpy())  # a copy: those of a slice take no mask
    return type(column).from_arrays(offsets, pc.struct_field(column.values, child), mask=column.is_null())


def describe(needs: Needs, peeked: pa.Array) -> tuple[ImageSpec | None, tuple[str, ...]]:
    """Describe the pixels by the first rows.

    Returns
    -------
    spec : ImageSpec or None
        Bands by the user's names; None when something is missing.
    bands : tuple of str
        The same bands as the file names them.
    """
    rows = [row for row in lists_of(peeked, "band").to_pylist() if row]
    fluxes = [row for row in lists_of(peeked, "flux").to_pylist() if row]
    if not rows or not fluxes:
        needs.add("none of the first cutouts has a band", "")
        return None, ()
    present = list(dict.fromkeys(str(name) for row in rows for name in row))
    stored, named = _chosen(needs, present)
    planes = Counter((len(plane), len(plane[0])) for row in fluxes for plane in row if plane and plane[0])
    if not planes:
        needs.add("the first cutouts have no pixels", "")
        return None, stored
    shape = (*planes.most_common(1)[0][0], len(stored))
    given = needs.given
    if given is not None and given.unit is None and given.stretch is None:
        needs.add(
            "the file does not say the flux unit (Multimodal Universe: Legacy nanomaggy, HSC counts of zero point 27)",
            "--unit UNIT [--zeropoint MAG]",
        )
        return None, stored
    unit, zeropoint = (given.unit, given.magnitude_of_one) if given else (None, None)
    stretch = (given.stretch if given else None) or "none"
    return ImageSpec("raw", shape, "float32", "CHW", named, unit, zeropoint, stretch), stored


def _chosen(needs: Needs, present: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which bands of the file to take, and what to call them."""
    asked = needs.given.bands if needs.given else None
    if asked is None:
        return tuple(present), tuple(present)
    pairs = [(word.partition("=")[0], word.partition("=")[2] or word) for word in asked]
    if all(stored in present for stored, _ in pairs):
        return tuple(stored for stored, _ in pairs), tuple(name for _, name in pairs)
    if len(asked) == len(present) and not any("=" in word for word in asked):
        return tuple(present), asked
    missing = [stored for stored, _ in pairs if stored not in present]
    raise InputError(
        f"the cutouts have no band {', '.join(missing)}; they have {', '.join(present)}",
        where=needs.uri,
        fix=f"name bands of the file, or rename them: --bands {','.join(f'{n}=NAME' for n in present)}",
    )


def to_bytes(column: pa.Array, stored: tuple[str, ...], spec: ImageSpec, mask: str | None) -> pa.Array:
    """Pack the planes of the wanted bands, in the layout CHW.

    A band that a row lacks is NaN; a row without a whole mask for each band is odd. Values as in `numbers.lists_to_bytes` where a row is null or odd.

    Parameters
    ----------
    column : pyarrow.Array
        N structs or lists of structs, with ``band``, ``flux`` and, where ``mask`` is given, ``mask``.
    stored : tuple of str
        Bands as the file names them.
    spec : ImageSpec
    mask : str, optional
        What True means: ``bad`` or ``clean``. Bad pixels become NaN.
    """
    height, width, _ = spec.shape
    names, flux = lists_of(column, "band"), lists_of(column, "flux")
    masks = lists_of(column, "mask") if mask else None
    wanted = _same_bands(names)
    if wanted is not None and set(stored) <= set(wanted):
        axes = (len(wanted), height, width)
        pixels = uniform_values(flux, axes, np.dtype(np.float32))
        flags = uniform_values(masks, axes, np.dtype(bool)) if masks is not None else None
        if pixels is not None and (masks is None or flags is not None):
            pixels = pixels.reshape(-1, *axes)
            if flags is not None:
                pixels = np.where(flags.reshape(pixels.shape) == (mask == "bad"), np.float32(np.nan), pixels)
            order = [wanted.index(name) for name in stored]
            return pack(pixels if order == list(range(len(wanted))) else pixels[:, order])
    rows = _rows(names, flux, masks, mask, stored, (height, width))
    return pa.array(rows, pa.large_binary())


def scales(column: pa.Array) -> pa.Array:
    """Pixel scale of each row in arcsec; null where bands differ by more than 1 % or none is there."""
    found = []
    for row in lists_of(column, "scale").to_pylist():
        values = [v for v in row or [] if v is not None and np.isfinite(v) and v > 0]
        agree = values and max(values) <= min(values) * (1 + _SCALES_AGREE)
        found.append(values[0] if agree else None)
    return pa.array(found, pa.float64())


def seeing(column: pa.Array, stored: tuple[str, ...]) -> pa.Array:
    """FWHM of the PSF of each wanted band in arcsec; null where it is not known."""
    found = []
    for names, row in zip(lists_of(column, "band").to_pylist(), lists_of(column, "psf_fwhm").to_pylist()):
        known = dict(zip(names or [], row or []))
        found.append([known.get(name) for name in stored])
    return pa.array(found, pa.list_(pa.float32(), len(stored)))


def _same_bands(names: pa.Array) -> list[str] | None:
    """Bands of all rows, when they are the same; None otherwise."""
    if names.null_count or not len(names):
        return None
    first = names[0].as_py()
    flat = pc.list_flatten(names)
    lengths = pc.list_value_length(names).to_numpy(zero_copy_only=False)
    if (lengths != len(first)).any() or len(set(first)) != len(first):
        return None
    return first if flat.to_pylist() == first * len(names) else None


def _rows(
    names: pa.Array,
    flux: pa.Array,
    masks: pa.Array | None,
    mask: str | None,
    stored: tuple[str, ...],
    plane: tuple[int, int],
) -> Iterator[bytes | None]:
    """One row after the other, where the fast way does not fit."""
    for row in range(len(names)):
        bands, planes = names[row].as_py(), flux[row]
        if bands is None or not planes.is_valid:
            yield None
            continue
        flags = masks[row].values if masks is not None and masks[row].is_valid else None
        made = np.full((len(stored), *plane), np.nan, np.float32)
        good = len(bands) == len(planes) == len(set(bands)) and bool(set(bands) & set(stored))
        good = good and (masks is None or (flags is not None and len(flags) == len(bands)))
        for number, name in enumerate(bands if good else []):
            if name not in stored:
                continue
            values = uniform_values(planes.values.slice(number, 1), plane, np.dtype(np.float32))
            flagged = None if flags is None else uniform_values(flags.slice(number, 1), plane, np.dtype(bool))
            if values is None or (flags is not None and flagged is None):
                good = False
                break
            target = made[stored.index(name)]
            target[:] = values.reshape(plane)
            if flagged is not None:
                target[flagged.reshape(plane) == (mask == "bad")] = np.nan
        yield made.tobytes() if good else b""
