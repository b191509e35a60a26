"""Collections: the files that tie a catalog, its margins and its extensions together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from surveyproc.catalog.hats.layout import CREATION_DATE, creation_date
from surveyproc.catalog.hats.properties import format_properties


def collection_file(
    name: str,
    primary: str,
    margins: Sequence[str] = (),
    extensions: Mapping[str, str] | None = None,
    provenance: Mapping[str, str] | None = None,
) -> bytes:
    """Make ``collection.properties``.

    Parameters
    ----------
    name : str
        Of the collection.
    primary : str
        Folder of the primary table below the collection's.
    margins : sequence of str
        Folders of the margins of the primary table; the first is the one readers use unasked.
    extensions : mapping of str to str, optional
        Alias to the path of the extension's properties file.
    provenance : mapping of str to str, optional
        Further properties.
    """
    properties = {"obs_collection": name, "hats_primary_table_url": primary}
    if margins:
        properties |= {"all_margins": " ".join(margins), "default_margin": margins[0]}
    if extensions:
        properties["all_extensions"] = " ".join(f"{alias} {path}" for alias, path in extensions.items())
    properties |= _common(provenance)
    return format_properties("HATS Collection", properties)


def extension_file(
    name: str,
    primary: str,
    join: str,
    columns: Sequence[str],
    key: str = "object_id",
    provenance: Mapping[str, str] | None = None,
) -> bytes:
    """Make ``<name>.properties``: further columns for the rows of a primary catalog, in a catalog of their own.

    Parameters
    ----------
    name : str
        Of the extension.
    primary : str
        Name of the collection that holds the file, or an absolute address of the catalog that is extended.
    join : str
        Folder of the extension's data, relative to the file, or an absolute address.
    columns : sequence of str
        What the extension adds.
    key : str
        Column by which both are joined.
    provenance : mapping of str to str, optional
        Further properties.

    Notes
    -----
    As `hats` 0.11 reads them (``ExtensionProperties``); its rows have the positions of the primary's.
    """
    properties = {
        "obs_collection": name,
        "dataproduct_type": "extension",
        "hats_primary_table_url": primary,
        "hats_col_assn_primary": key,
        "hats_assn_join_table_url": join,
        "hats_col_assn_join": key,
        "hats_ext_cols": " ".join(columns),
        "hats_ext_join_style": "left",
        "hats_ext_shares_primary_coords": "True",
        **_common(provenance),
    }
    return format_properties("HATS Extension", properties)


def margin_properties(primary: str, threshold_arcsec: float) -> dict[str, str]:
    """Properties that a margin has beside those of any catalog."""
    return {"hats_primary_table_url": primary, "hats_margin_threshold": f"{threshold_arcsec:g}"}


def _common(provenance: Mapping[str, str] | None) -> dict[str, str]:
    return {
        "hats_builder": "surveyproc",
        CREATION_DATE: creation_date(),
        "hats_version": "v1.0",
        **(provenance or {}),
    }
