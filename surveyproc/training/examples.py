"""Read the labelled cutouts of a catalog once, as small canvases for training and prepared views to judge by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from surveyproc.catalog import Catalog, read_batches
from surveyproc.cutouts import InputContract
from surveyproc.errors import InputError
from surveyproc.identifiers import SPLITS, hash_ids, splits_of
from surveyproc.images.decode import decode_batch
from surveyproc.images.views import centre_crop, prepare, resize
from surveyproc.training.augment import OVERSAMPLE
from surveyproc.votes.labels import Labels, join_ids

MARGIN = 1.5
BATCH_ROWS = 64


@dataclass(frozen=True)
class Examples:
    """Pixels and targets of one split.

    Attributes
    ----------
    pixels : numpy.ndarray
        ``(N, S, S, C)`` uint8 canvases for training, or ``(N, C, size, size)`` float32 prepared views.
    joint : torch.Tensor
        ``(N, K)`` float32 joint targets.
    counts : torch.Tensor, optional
        ``(N, K)`` float32 votes; None when the labels are fractions.
    keys : numpy.ndarray, optional
        ``(N,)`` uint64 hashes of the catalog's ids, as the engine keys its dropout.
    """

    pixels: np.ndarray
    joint: torch.Tensor
    counts: torch.Tensor | None = None
    keys: np.ndarray | None = None


def make_canvases(pixels: torch.Tensor, contract: InputContract) -> torch.Tensor:
    """Shrink decoded cutouts once to what random views are sampled from.

    Parameters
    ----------
    pixels : torch.Tensor
        ``(N, H, W, C)`` uint8.

    Returns
    -------
    torch.Tensor
        ``(N, S, S, C)`` uint8: the central ``MARGIN`` times the contract's crop, with ``OVERSAMPLE`` pixels to
        a pixel of the contract, on the same scale as `images.views.prepare`. Where the cutout is too small
        for the margin the canvas is smaller.
    """
    kept = min(1.0, contract.crop * MARGIN)
    side = round(contract.size * OVERSAMPLE * kept / contract.crop)
    images = centre_crop(pixels.permute(0, 3, 1, 2), kept).float()
    return resize(images, side).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def load_examples(
    catalog: Catalog,
    labels: Labels,
    contract: InputContract,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Examples]:
    """Join a catalog with labels and read the cutouts of each split.

    Memory: a canvas per training galaxy (110 kB at 64 px), a view per other galaxy (49 kB); the decoded
    cutouts are never held beyond one batch.

    Returns
    -------
    dict
        `Examples` of ``train`` (canvases), ``validation``, ``calibration`` and ``test`` (prepared).

    Raises
    ------
    InputError
        When no id is in both, the pixels are not uint8, no cutout can be read, or a split is empty.
    """
    if catalog.image.dtype != "uint8":
        raise InputError(
            f"training needs uint8 display cutouts; these are {catalog.image.dtype}",
            where=catalog.uri,
            fix="ingest display images, or apply a stretch preset while ingesting",
        )
    if found := contract.mismatches(catalog.image):
        raise InputError("; ".join(found), where=catalog.uri, fix="train on a catalog of display images")
    ids = [str(i) for batch in _batches(catalog, ["object_id"]) for i in batch["object_id"].to_pylist()]
    join = join_ids(ids, labels.ids)
    say(f"catalog and labels: {join.describe('catalog', 'labels')}")
    if not len(join.left):
        raise InputError(
            f"no id of the labels is in the catalog (labels: {', '.join(labels.ids[:3])}; "
            f"catalog: {', '.join(ids[:3])})",
            where=catalog.uri,
            fix="name the column of the same ids with --id",
        )
    row_of = dict(zip(join.left.tolist(), join.right.tolist()))
    splits = splits_of(ids)
    pixels: dict[str, list[np.ndarray]] = {s: [] for s in SPLITS}
    rows: dict[str, list[int]] = {s: [] for s in SPLITS}
    keys: dict[str, list[np.ndarray]] = {s: [] for s in SPLITS}
    start = unreadable = 0
    for batch in _batches(catalog, ["object_id", "image"]):
        decoded, failures = decode_batch(batch["image"], catalog.image)
        numbers = range(start, start + len(batch))
        start += len(batch)
        unreadable += sum(start - len(batch) + i in row_of for i in failures)
        for split in SPLITS:
            chosen = [
                i for i, n in enumerate(numbers) if n in row_of and i not in failures and splits[n] == split
            ]
            if not chosen:
                continue
            images = torch.from_numpy(np.ascontiguousarray(decoded[chosen]))
            made = make_canvases(images, contract) if split == "train" else prepare(images, contract)
            pixels[split].append(made.numpy())
            rows[split] += [row_of[numbers[i]] for i in chosen]
            keys[split].append(hash_ids(batch["object_id"].take(pa.array(chosen))))
    if unreadable:
        say(f"{unreadable} labelled cutouts cannot be decoded and are left out")
    say("examples: " + ", ".join(f"{len(rows[s])} {s}" for s in SPLITS))
    if empty := [s for s in SPLITS if not rows[s]]:
        raise InputError(
            f"no labelled cutout falls into: {', '.join(empty)}",
            where=catalog.uri,
            fix="splits go by a hash of the id; a few hundred galaxies fill all four",
        )
    joint = torch.from_numpy(labels.joint).float()
    return {
        s: Examples(np.concatenate(pixels[s]), joint[rows[s]], keys=np.concatenate(keys[s])) for s in SPLITS
    }


def _batches(catalog: Catalog, columns: list[str]) -> Iterator:
    for file in catalog.files:
        groups = range(len(file.row_groups))
        yield from read_batches(catalog.uri, file.path, groups, BATCH_ROWS, columns)
