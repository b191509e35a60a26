"""Match the rows of a table with the images of a folder."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from surveyproc.ingest.report import Rejects
from surveyproc.ingest.table import ObjectTable


def match_images(
    objects: ObjectTable, images: dict[str, list[str]], rejects: Rejects
) -> tuple[list[int], list[str]]:
    """Find the one image of each row; rows without, with several, or with a repeated id are rejected.

    Returns
    -------
    rows : list of int
        Rows of the table, in its order.
    paths : list of str
        The image of each.
    """
    ids = objects.columns["object_id"].combine_chunks()
    codes = pc.fill_null(ids.dictionary_encode().indices, -1).to_numpy()
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    first_row = first[inverse].tolist()
    rows, paths = [], []
    for row, object_id in enumerate(ids.to_pylist()):
        if object_id is None:
            rejects.add(None, "missing_id", f"row {row + 1} of the table has no id")
            continue
        if first_row[row] != row:
            detail = f"row {row + 1} of the table repeats the id of row {first_row[row] + 1}, which stays"
            rejects.add(object_id, "duplicate_id", detail)
            continue
        found = images.get(str(object_id), [])
        if len(found) == 1:
            rows.append(row)
            paths.append(found[0])
        elif found:
            rejects.add(
                object_id, "ambiguous_image", f"several images have this name: {', '.join(found[:3])}"
            )
        else:
            rejects.add(object_id, "missing_image", "no image is named after this id")
    return rows, paths


def reject_orphans(objects: ObjectTable, images: dict[str, list[str]], rejects: Rejects) -> int:
    """Reject the images whose name is no id of the table; returns how many."""
    known = {str(i) for i in objects.columns["object_id"].to_pylist() if i is not None}
    orphans = [(stem, path) for stem, paths in images.items() if stem not in known for path in paths]
    for stem, path in orphans:
        rejects.add(stem, "image_without_row", f"no row of the table has this id: {path}")
    return len(orphans)
