"""How the tiles of a survey lie in files: what the user says, and presets that know it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from surveyproc.errors import UsageError, did_you_mean
from surveyproc.ingest.tiles.presets import Preset, read_preset
from surveyproc.ingest.tiles.units import FLUX_KEYS, MAGNITUDE_KEYS, by_band

PLANES = ("weight", "mask", "psf")


@dataclass(frozen=True)
class Layout:
    """How the tiles of a survey lie in files.

    Attributes
    ----------
    files : mapping of str to str
        Pattern (path or URL) of ``image`` and of planes in files of their own. Placeholders: ``{band}``; ``{tile}``
        and any others, which together name the tile (others hold no underscore); ``*`` and ``?`` stand for
        anything within a name. Without ``{band}`` one file holds all bands.
    bands : tuple of str
        Bands to read, in order.
    band_names : mapping of str to str
        What a band is called in file names, when that is not its own name.
    hdus : mapping of str to (int or str)
        Number or EXTNAME of ``image`` and of planes; ``{band}`` in it stands for the band. Without an entry
        the first image is taken.
    planes : tuple of str
        Planes to find beside the image: ``weight``, ``mask``, ``psf``.
    weight_kind : str
        What the weights are: ``ivar``, ``variance`` or ``rms``.
    saturated_bits : tuple of int or str
        Bits of the mask that mean saturated: numbers from 0, or header keywords that hold the number.
    zeropoint_keys : tuple of str
        Header keywords of the AB zero point, beside BUNIT.
    zeropoints : mapping of str to float
        AB magnitude of one unit of the image by band, which stands before any header.
    saturation_keys, psf_keys : tuple of str
        Keywords of the saturation level (units of the image) and of the PSF's FWHM in arcsec.
    pixel_scale_arcsec : float or None
        What the pixel scale should be.
    resample : bool
        Accept bands on different grids: they are resampled to that of the first.
    """

    files: Mapping[str, str]
    bands: tuple[str, ...]
    band_names: Mapping[str, str] = field(default_factory=dict)
    hdus: Mapping[str, int | str] = field(default_factory=dict)
    planes: tuple[str, ...] = ()
    weight_kind: str = "ivar"
    saturated_bits: tuple[int | str, ...] = ()
    zeropoint_keys: tuple[str, ...] = MAGNITUDE_KEYS + FLUX_KEYS
    zeropoints: Mapping[str, float] = field(default_factory=dict)
    saturation_keys: tuple[str, ...] = ("SATURATE",)
    psf_keys: tuple[str, ...] = ()
    pixel_scale_arcsec: float | None = None
    resample: bool = False

    @property
    def pattern(self) -> str:
        """Pattern of the image files."""
        return self.files["image"]


def read_layout(
    pattern: str,
    bands: Sequence[str] = (),
    *,
    preset: str | None = None,
    planes: Sequence[str] = (),
    zeropoints: Mapping[str, float] | None = None,
    pixel_scale_arcsec: float | None = None,
    hdu: int | str | None = None,
    resample: bool = False,
) -> Layout:
    """Make a layout of what the user said.

    Parameters
    ----------
    pattern : str
        Pattern of the image files; with a preset also just their folder.
    bands : sequence of str
        All bands of the preset when empty.
    preset : str, optional
        Name of a shipped preset, or path of a YAML file of the same form.
    planes : sequence of str
        Of ``weight``, ``mask``, ``psf``, which the preset has to know.
    zeropoints : mapping of str to float, optional
        By band; ``*`` is every other band.
    pixel_scale_arcsec : float, optional
        What the pixel scale should be; the preset's when it is not given.
    hdu : int or str, optional
        Number or EXTNAME of the image.
    resample : bool
        Accept bands on different grids.

    Raises
    ------
    UsageError
        For what cannot be meant.
    """
    known = read_preset(preset) if preset else Preset("")
    bands = tuple(bands) or tuple(known.bands)
    zeropoints = by_band(zeropoints or {}, bands)
    _check_bands(bands, known, zeropoints)
    _check_planes(planes, known, preset)
    hdus = dict(known.hdus) | ({} if hdu is None else {"image": hdu})
    return Layout(
        files=_files(pattern, known, planes),
        bands=bands,
        band_names=known.bands,
        hdus=hdus,
        planes=tuple(planes),
        weight_kind=known.weight,
        saturated_bits=known.saturated_bits,
        zeropoint_keys=known.zeropoint_keys or MAGNITUDE_KEYS + FLUX_KEYS,
        zeropoints=zeropoints,
        saturation_keys=known.saturation_keys,
        psf_keys=known.psf_keys,
        pixel_scale_arcsec=pixel_scale_arcsec or known.pixel_scale_arcsec,
        resample=resample,
    )


def _files(pattern: str, known: Preset, planes: Sequence[str]) -> dict[str, str]:
    has_placeholder = "{" in pattern or pattern.lower().endswith((".fits", ".fit", ".fz", ".gz", ".bz2"))
    if has_placeholder or not known.files:
        folder, image = pattern.rpartition("/")[0] or ".", pattern
    else:
        folder = pattern.rstrip("/")
        image = f"{folder}/{known.files['image']}"
    others = {plane: f"{folder}/{known.files[plane]}" for plane in planes if plane in known.files}
    return {"image": image} | others


def _check_bands(bands: Sequence[str], known: Preset, zeropoints: Mapping[str, float]) -> None:
    if not bands or len(set(bands)) != len(bands):
        raise UsageError(
            "--bands names each band once", where=",".join(bands), fix="for example --bands g,r,i"
        )
    for band in bands:
        if known.bands and band not in known.bands:
            raise UsageError(
                f"the preset has no band {band!r}.{did_you_mean(band, known.bands)}",
                where="--bands",
                fix=f"its bands are {', '.join(known.bands)}",
            )
    unknown = sorted(set(zeropoints) - set(bands))
    if unknown:
        raise UsageError(
            f"a zero point is given for {', '.join(unknown)}, which --bands does not name",
            where="--zeropoint",
            fix=f"bands are {', '.join(bands)}",
        )


def _check_planes(planes: Sequence[str], known: Preset, preset: str | None) -> None:
    for plane in planes:
        if plane not in PLANES:
            raise UsageError(
                f"unknown plane {plane!r}.{did_you_mean(plane, PLANES)}",
                where="--planes",
                fix=f"planes are {', '.join(PLANES)}",
            )
        if plane not in known.files and plane not in known.hdus:
            raise UsageError(
                f"where is the {plane} plane? "
                + (f"preset {preset} does not say" if preset else "no preset is given"),
                where="--planes",
                fix=f"give --preset FILE.yaml with files: {{{plane}: PATTERN}} or hdus: {{{plane}: NUMBER}}",
            )
