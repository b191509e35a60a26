"""What columns mean: description, unit and UCD, carried by the field itself from the engine to the user's file.

Units are VOUnits (https://www.ivoa.net/documents/VOUnits/), UCDs are UCD1+ (https://www.ivoa.net/documents/UCD1+/).
"""

from __future__ import annotations

import pyarrow as pa

from surveyproc.quality import describe_bits

DESCRIPTION, UNIT, UCD = "description", "unit", "ucd"
ATTRIBUTES = (DESCRIPTION, UNIT, UCD)

# Name: description, unit, UCD. For columns whose field says nothing itself.
KNOWN = {
    "object_id": ("identifier, unique in the catalog", "", "meta.id;meta.main"),
    "ra": ("right ascension, ICRS", "deg", "pos.eq.ra;meta.main"),
    "dec": ("declination, ICRS", "deg", "pos.eq.dec;meta.main"),
    "_healpix_29": ("nested HEALPix index, order 29", "", "pos.healpix"),
    "quality": (describe_bits(), "", "meta.code.qual"),
    "x0": ("position of ra, dec in the stamp, 0-based column", "pixel", "pos.cartesian.x;instr.pixel"),
    "y0": ("position of ra, dec in the stamp, 0-based row", "pixel", "pos.cartesian.y;instr.pixel"),
    "cd11": ("WCS matrix: longitude by column", "deg/pixel", "pos.wcs.cdmatrix"),
    "cd12": ("WCS matrix: longitude by row", "deg/pixel", "pos.wcs.cdmatrix"),
    "cd21": ("WCS matrix: latitude by column", "deg/pixel", "pos.wcs.cdmatrix"),
    "cd22": ("WCS matrix: latitude by row", "deg/pixel", "pos.wcs.cdmatrix"),
    "pixel_scale_arcsec": ("size of a pixel", "arcsec/pixel", "pos.wcs.scale"),
    "psf_fwhm_arcsec": (
        "full width at half maximum of the PSF, by band",
        "arcsec",
        "instr.det.psf;stat.fwhm",
    ),
    "image": ("pixels of the cutout", "", "meta.dataset;obs.image"),
    "shard": ("unit of the run that had the row", "", "meta.id.part"),
    "stage": ("step that rejected the row", "", "meta.code.class"),
    "reason": ("why the row was rejected", "", "meta.code.error"),
    "detail": ("what was seen", "", "meta.note"),
}


def described(name: str, kind: pa.DataType, description: str, unit: str = "", ucd: str = "") -> pa.Field:
    """Make a field that carries its description, and unit and UCD where it has them."""
    said = {DESCRIPTION: description, UNIT: unit, UCD: ucd}
    return pa.field(name, kind, metadata={key: value for key, value in said.items() if value})


def known(name: str, kind: pa.DataType) -> pa.Field:
    """Make the field of one of the `KNOWN` columns."""
    return described(name, kind, *KNOWN[name])


def attributes(field: pa.Field) -> dict[str, str]:
    """Read ``description``, ``unit`` and ``ucd`` of a field; what it does not say itself is that of `KNOWN`.

    Returns
    -------
    dict of str to str
        Without those that are unknown.
    """
    stored = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    usual = dict(zip(ATTRIBUTES, KNOWN.get(field.name, ("", "", ""))))
    said = {key: stored.get(key) or usual[key] for key in ATTRIBUTES}
    return {key: value for key, value in said.items() if value}


def with_attributes(field: pa.Field) -> pa.Field:
    """Write what `attributes` knows of a field into its metadata; other keys stay."""
    said = {key.encode(): value.encode() for key, value in attributes(field).items()}
    return field.with_metadata({**(field.metadata or {}), **said}) if said else field
