"""Read the labelled cutouts of a catalog once, as small canvases for training and prepared views to judge by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from surveyproc.catalog import Catalog, read_batches
from surveyproc.cutouts import ImageSpec, InputContract
from surveyproc.errors import InputError
from surveyproc.identifiers import SPLITS, hash_ids, splits_of
from surveyproc.images.decode import decode_batch
from surveyproc.images.inputs import BundleInput, mismatches
from surveyproc.images.views import centre_crop, prepare, resize
from surveyproc.inference.screen import screen_pixels
from surveyproc.training.augment import OVERSAMPLE
from surveyproc.votes.labels import Labels, join_ids

MARGIN = 1.5
BATCH_ROWS = 64
SCALE = "pixel_scale_arcsec"


@dataclass(frozen=True)
class Examples:
    """Pixels and targets of one split.

    Attributes
    ----------
    pixels : numpy.ndarray
        ``(N, S, S, C)`` canvases for training, of the catalog's dtype, or ``(N, C, size, size)`` float32 prepared views.
    joint : torch.Tensor
        ``(N, K)`` float32 joint targets.
    counts : torch.Tensor, optional
        ``(N, K)`` float32 votes; None when the labels are fractions.
    keys : numpy.ndarray, optional
        ``(N,)`` uint64 hashes of the object ids (`identifiers.hash_ids`), which key dropout as in the engine.
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
        ``(N, H, W, C)``.

    Returns
    -------
    torch.Tensor
        ``(N, S, S, C)`` of the same dtype: the central ``MARGIN`` times the contract's crop, with ``OVERSAMPLE`` pixels to
        a pixel of the contract, on the same scale as `images.views.prepare`. Where the cutout is too small
        for the margin the canvas is smaller.
    """
    kept = min(1.0, contract.crop * MARGIN)
    side = round(contract.size * OVERSAMPLE * kept / contract.crop)
    images = centre_crop(pixels.permute(0, 3, 1, 2), kept).float()
    images = resize(images, side)
    if pixels.dtype == torch.uint8:
        images = images.round().clamp(0, 255)
    return images.to(pixels.dtype).permute(0, 2, 3, 1).contiguous()


@dataclass(frozen=True)
class Joined:
    """What a catalog and labels have in common.

    Attributes
    ----------
    rows, labels : dict of str to numpy.ndarray
        For each split: row numbers of the catalog, ascending, and the row of the labels for each.
    keys : numpy.ndarray
        uint64 hashes of the ids of all rows of the catalog.
    """

    rows: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    keys: np.ndarray


def join_labels(
    catalog: Catalog,
    labels: Labels,
    contract: InputContract,
    say: Callable[[str], None] = lambda line: None,
) -> Joined:
    """Join a catalog with labels by id, say what matched, and refuse what cannot be trained on.

    Raises
    ------
    InputError
        With everything that is wrong: bands that are missing, another stretch than the contract's, no id in both,
        a split without an example.
    """
    has_scale = SCALE in catalog.schema.names
    problems = mismatches(contract, catalog.image, has_pixel_scale=has_scale)
    columns = [batch["object_id"] for batch in _batches(catalog, ["object_id"])]
    ids = [str(i) for column in columns for i in column.to_pylist()]
    join = join_ids(ids, labels.ids)
    say(f"catalog and labels: {join.describe('catalog', 'labels')}")
    splits = splits_of(ids)[join.left] if len(join.left) else np.empty(0, "<U11")
    empty = [s for s in SPLITS if s not in splits]
    if not len(join.left):
        problems.append(
            f"no id of the labels is in the catalog (labels: {', '.join(labels.ids[:3])}; "
            f"catalog: {', '.join(ids[:3])}): name the column of the same ids with --id"
        )
    elif empty:
        problems.append(
            f"no labelled cutout falls into: {', '.join(empty)} (splits go by a hash of the id; a few hundred "
            "galaxies fill all four)"
        )
    if problems:
        raise InputError(
            "; ".join(problems),
            where=catalog.uri,
            fix="set train.bands and train.stretch as the catalog has them, and give labels of the same objects",
        )
    return Joined(
        {s: join.left[splits == s] for s in SPLITS},
        {s: join.right[splits == s] for s in SPLITS},
        np.concatenate([hash_ids(column) for column in columns]),
    )


def read_pixels(
    batches: Iterable[pa.RecordBatch],
    first: int,
    wanted: np.ndarray,
    spec: ImageSpec,
    contract: InputContract,
    canvases: bool,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Decode wanted rows of consecutive batches.

    Parameters
    ----------
    batches : iterable of pyarrow.RecordBatch
        With the column ``image``, and ``pixel_scale_arcsec`` where the stretch needs it.
    first : int
        Row number of the first batch's first row.
    wanted : numpy.ndarray
        Row numbers, ascending.
    canvases : bool
        Make canvases for training, or prepared views to judge by.

    Yields
    ------
    numbers, pixels : numpy.ndarray
        Row numbers of those that could be decoded, and ``(n, S, S, C)`` uint8 canvases or
        ``(n, C, size, size)`` float32 views.
    """
    source = BundleInput(contract, spec)
    for batch in batches:
        low, high = np.searchsorted(wanted, [first, first + len(batch)])
        places = wanted[low:high] - first
        first += len(batch)
        if len(places) == 0:
            continue
        decoded, failures = decode_batch(batch["image"].take(pa.array(places)), spec)
        decoded, _, unusable = screen_pixels(decoded)
        scales = _scales(batch, places) if source.needs_pixel_scale else None
        unscaled = () if scales is None else np.flatnonzero(~(scales > 0)).tolist()
        bad = failures.keys() | unusable.keys() | set(unscaled)
        good = np.array([i for i in range(len(places)) if i not in bad], dtype=np.int64)
        if len(good) == 0:
            continue
        images = torch.from_numpy(np.ascontiguousarray(decoded[good]))
        images = source.pixels(images, None if scales is None else scales[good])
        made = make_canvases(images, contract) if canvases else prepare(images, contract)
        yield wanted[low:high][good], made.numpy()


def columns_of(catalog: Catalog, contract: InputContract) -> list[str]:
    """Columns that `read_pixels` wants of a catalog."""
    scaled = BundleInput(contract, catalog.image).needs_pixel_scale
    return ["object_id", "image", *([SCALE] if scaled else [])]


def _scales(batch: pa.RecordBatch, places: np.ndarray) -> np.ndarray:
    """Pixel scales of some rows, NaN where they are not known."""
    return batch[SCALE].take(pa.array(places)).cast(pa.float64()).to_numpy(zero_copy_only=False)


def load_examples(
    catalog: Catalog,
    labels: Labels,
    contract: InputContract,
    say: Callable[[str], None] = lambda line: None,
    joined: Joined | None = None,
    splits: Sequence[str] = SPLITS,
) -> dict[str, Examples]:
    """Join a catalog with labels and read the cutouts of each split.

    Memory: a canvas for each training galaxy (110 kB at 64 px), a view for each other galaxy (49 kB); the decoded
    cutouts are never held beyond one batch.

    Parameters
    ----------
    joined : Joined, optional
        From `join_labels`, when that was done before.
    splits : sequence of str
        Those to read.

    Returns
    -------
    dict
        `Examples` of ``train`` (canvases), ``validation``, ``calibration`` and ``test`` (prepared), those of ``splits``.

    Raises
    ------
    InputError
        As `join_labels`, and when no cutout of a split can be read.
    """
    joined = joined or join_labels(catalog, labels, contract, say)
    numbers: dict[str, list[np.ndarray]] = {s: [] for s in splits}
    pixels: dict[str, list[np.ndarray]] = {s: [] for s in splits}
    first = 0
    for batch in _batches(catalog, columns_of(catalog, contract)):
        for split in splits:
            for found, made in read_pixels(
                [batch], first, joined.rows[split], catalog.image, contract, canvases=split == "train"
            ):
                numbers[split].append(found)
                pixels[split].append(made)
        first += len(batch)
    read = {s: sum(map(len, numbers[s])) for s in splits}
    if unreadable := sum(len(joined.rows[s]) - read[s] for s in splits):
        say(f"{unreadable} labelled cutouts have no usable pixels and are left out")
    say("examples: " + ", ".join(f"{read[s]} {s}" for s in splits))
    if empty := [s for s in splits if not read[s]]:
        raise InputError(
            f"no cutout of these splits can be decoded: {', '.join(empty)}",
            where=catalog.uri,
            fix="ingest the images again",
        )
    examples = {}
    for split in splits:
        examples[split] = with_targets(
            np.concatenate(pixels[split]), np.concatenate(numbers[split]), split, joined, labels
        )
    return examples


def with_targets(
    pixels: np.ndarray, numbers: np.ndarray, split: str, joined: Joined, labels: Labels
) -> Examples:
    """Put pixels and targets of some rows of a split together; ``numbers`` are ascending rows of the catalog."""
    rows = joined.labels[split][np.searchsorted(joined.rows[split], numbers)]
    counts = labels.counts
    return Examples(
        pixels,
        torch.from_numpy(labels.joint[rows]).float(),
        None if counts is None else torch.from_numpy(counts[rows]).float(),
        joined.keys[numbers],
    )


def _batches(catalog: Catalog, columns: list[str]) -> Iterator:
    for file in catalog.files:
        groups = range(len(file.row_groups))
        yield from read_batches(catalog.uri, file.path, groups, BATCH_ROWS, columns, form=catalog.form)
