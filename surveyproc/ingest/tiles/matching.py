"""Which files make a tile: file names against patterns."""

from __future__ import annotations

import re

from surveyproc.errors import InputError
from surveyproc.ingest.tiles.layout import Layout
from surveyproc.stores import explain_store_errors, filesystem, is_local

MOST_NAMED = 12
_PIECE = re.compile(r"\{([a-z_]+)\}|([*?])")

Files = dict[tuple[str, str], str]  # (plane, band) to path or URL


def match_files(layout: Layout) -> dict[str, Files]:
    """Find the files of a layout.

    Returns
    -------
    dict of str to dict
        Tile name to the files of its planes: ``(plane, band)`` to path or URL. In a layout of one file per
        tile every band has that file, and planes in HDUs have the file of their image.

    Raises
    ------
    InputError
        When no file matches, a band or plane is in no tile, or two files claim to be the same.
    """
    tiles: dict[str, Files] = {}
    for plane in ("image", *layout.planes):
        pattern = layout.files.get(plane)
        if pattern is None:
            for files in tiles.values():
                files |= {(plane, b): uri for (other, b), uri in list(files.items()) if other == "image"}
        else:
            _match_plane(layout, plane, pattern, tiles)
    for plane in ("image", *layout.planes):
        for band in layout.bands:
            if not any((plane, band) in files for files in tiles.values()):
                what = (
                    f"no tile has band {band}"
                    if plane == "image"
                    else f"no tile has a {plane} plane of band {band}"
                )
                pattern = layout.files.get(plane, layout.pattern)
                raise InputError(
                    what,
                    where=f"{pattern}; {len(tiles)} tiles, such as {next(iter(tiles))}",
                    fix=_other_bands(pattern, layout) or "check --bands and how the file names spell them",
                )
    return dict(sorted(tiles.items()))


def _match_plane(layout: Layout, plane: str, pattern: str, tiles: dict[str, Files]) -> None:
    expression = _expression(pattern, layout)
    listed = _list(pattern)
    matches = [(uri, match) for uri, path in listed if (match := expression.fullmatch(path))]
    if not matches:
        examples = ", ".join(uri for uri, _ in listed[:3]) or "nothing"
        raise InputError(
            f"no file matches the pattern of {'--tiles' if plane == 'image' else 'plane ' + plane}",
            where=f"{pattern} with bands {', '.join(layout.bands)}; found there: {examples}",
            fix=_other_bands(pattern, layout)
            or "placeholders are {tile} and {band}; quote the pattern: 'DIR/{tile}_{band}.fits'",
        )
    for uri, match in matches:
        found = match.groupdict()
        text = found.pop("band", None)
        name = "-".join(found.values()) or _plain_name(pattern)
        if plane != "image" and name not in tiles:
            continue
        files = tiles.setdefault(name, {})
        for band in layout.bands:
            if text is not None and layout.band_names.get(band, band) != text:
                continue
            if (plane, band) in files:
                raise InputError(
                    f"two files for band {band} of tile {name}",
                    where=f"{files[plane, band]} and {uri}",
                    fix="make the pattern name one of them",
                )
            files[plane, band] = uri


def _other_bands(pattern: str, layout: Layout) -> str:
    """Say what the file names have in the place of the band; empty when they fit the pattern with no band at all."""
    if "{band}" not in pattern:
        return ""
    expression = _expression(pattern, layout, "[^/_]+?")
    matches = (expression.fullmatch(path) for _, path in _list(pattern))
    found = sorted({match["band"] for match in matches if match})
    names = ", ".join(found[:MOST_NAMED]) + (", ..." if len(found) > MOST_NAMED else "")
    return f"the file names have the bands {names}; --bands takes these, comma separated" if found else ""


def _list(pattern: str) -> list[tuple[str, str]]:
    """Files below the part of a pattern without placeholders: address to open, and path to match."""
    fixed = re.split(r"[{*?]", pattern, maxsplit=1)[0]
    folder = (fixed.rpartition("/")[0] or "/") if "/" in fixed else "."
    found, root = filesystem(folder)
    depth = pattern.count("/") - fixed.count("/") + 1
    with explain_store_errors(folder):
        try:
            found.invalidate_cache()
            paths = sorted(found.find(root, maxdepth=depth))
        except FileNotFoundError:
            paths = []
    if is_local(found):
        return [(path, path) for path in paths]
    return [(found.unstrip_protocol(path), path) for path in paths]


def _expression(pattern: str, layout: Layout, names: str = "") -> re.Pattern[str]:
    """Pattern as a regular expression of full paths on the file system; ``names`` is what a band may be called."""
    fixed = re.split(r"[{*?]", pattern, maxsplit=1)[0]
    folder = (fixed.rpartition("/")[0] or "/") if "/" in fixed else "."
    root = filesystem(folder)[1].rstrip("/")
    rest = pattern[len(folder) :] if "/" in fixed else f"/{pattern}"
    names = names or "|".join(re.escape(layout.band_names.get(band, band)) for band in layout.bands)
    pieces, seen, position = [re.escape(root)], set(), 0
    for match in _PIECE.finditer(rest):
        pieces.append(re.escape(rest[position : match.start()]))
        name, wild = match.groups()
        if wild:
            pieces.append("[^/]*?" if wild == "*" else "[^/]")
        elif name in seen:
            pieces.append(f"(?P={name})")
        else:
            kinds = {"band": names, "tile": "[^/]+"}
            pieces.append(f"(?P<{name}>{kinds.get(name, '[^/_]+')})")
            seen.add(name)
        position = match.end()
    pieces.append(re.escape(rest[position:]))
    return re.compile("".join(pieces))


def _plain_name(pattern: str) -> str:
    """Name of the only tile of a pattern without placeholders for it."""
    last = _PIECE.sub("", pattern.rpartition("/")[2]).split(".fit")[0]
    return re.sub(r"[^A-Za-z0-9]+", "_", last).strip("_") or "tile"
