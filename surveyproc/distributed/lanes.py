"""Cutouts for the workers of a training: Ray Data tasks decode the row groups that a worker's lanes need.

Torch is imported where pixels are touched only: the actor that makes the datasets is in every start's way.

What travels to a task is a descriptor: a row group, the rows wanted of it, their targets. Pixels cross the object
store once, as small canvases, on their way into the worker that keeps them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from ray import data
from ray.train import DataConfig

from surveyproc.cutouts import ImageSpec, InputContract
from surveyproc.errors import InputError
from surveyproc.training.sampler import Lanes

if TYPE_CHECKING:
    from surveyproc.catalog import Catalog
    from surveyproc.training.examples import Examples, Joined
    from surveyproc.votes.labels import Labels

DECODE_CPUS = 0.05  # the workers that wait for the pixels hold nearly all CPUs


@dataclass(frozen=True)
class Source:
    """One split of the examples, as the driver knows it before any pixel is read.

    Attributes
    ----------
    groups : list of tuple
        File, its size and version, row group, number of its first row in the catalog, rows.
    rows : numpy.ndarray
        Catalog rows of the split, ascending.
    columns : list of str
        What is read of the catalog.
    joint, counts : numpy.ndarray
        ``(N, K)`` float32 targets; counts None where the labels are fractions.
    """

    uri: str
    image: str
    contract: dict[str, Any]
    canvases: bool
    groups: list[tuple[str, int, str, int, int, int]]
    rows: np.ndarray
    columns: list[str]
    joint: np.ndarray
    counts: np.ndarray | None

    def share(self, rank: int, processes: int, batch: int) -> range:
        """Which examples belong to a worker: its lanes, or its part of a split that is only judged."""
        count = len(self.rows)
        if not self.canvases:
            return range(rank * count // processes, (rank + 1) * count // processes)
        lanes = Lanes(count, batch)
        owned = lanes.owned(rank, processes)
        return range(lanes.start(owned.start), lanes.start(owned.stop))

    def descriptors(self, share: range) -> Iterator[dict[str, Any]]:
        """One row for each row group that has wanted examples."""
        wanted = self.rows[share.start : share.stop]
        for file, size, version, group, first, rows in self.groups:
            low, high = np.searchsorted(wanted, [first, first + rows])
            if low == high:
                continue
            part = slice(share.start + low, share.start + high)
            yield {
                "file": file,
                "size": size,
                "version": version,
                "group": group,
                "first": first,
                "position": int(part.start),
                "wanted": wanted[low:high].tobytes(),
                "joint": self.joint[part].tobytes(),
                "counts": b"" if self.counts is None else self.counts[part].tobytes(),
            }


def source_of(
    catalog: Catalog, uri: str, labels: Labels, joined: Joined, split: str, contract: InputContract
) -> Source:
    """Describe one split; ``uri`` is the catalog's as the workers see it."""
    from surveyproc.training.examples import columns_of

    groups, first = [], 0
    for file in catalog.files:
        for number, group in enumerate(file.row_groups):
            groups.append((file.path, file.size, file.version, number, first, group.rows))
            first += group.rows
    rows = joined.labels[split]
    counts = labels.counts
    return Source(
        uri,
        catalog.image.to_json(),
        asdict(contract),
        split == "train",
        groups,
        joined.rows[split],
        columns_of(catalog, contract),
        labels.joint[rows].astype(np.float32),
        None if counts is None else counts[rows].astype(np.float32),
    )


class LaneConfig(DataConfig):
    """Gives each worker of a group the datasets of its own lanes, for whatever number of workers there is.

    Ray's own splitting hands out blocks as they come; here a worker must own the same galaxies in every epoch.
    """

    def __init__(self, sources: dict[str, Source], batch: int) -> None:
        super().__init__(datasets_to_split=[])
        self._sources, self._batch = sources, batch

    def configure(
        self,
        datasets: dict[str, Any],
        world_size: int,
        worker_handles: Any,
        worker_node_ids: Any,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """Build a lazy dataset for each worker."""
        return [
            {
                name: dataset_of(
                    self._sources[name], self._sources[name].share(rank, world_size, self._batch)
                )
                for name in datasets
            }
            for rank in range(world_size)
        ]


def dataset_of(source: Source, share: range) -> Any:
    """Iterator over the decoded examples of a share."""
    rows = list(source.descriptors(share))
    settings = {
        "uri": source.uri,
        "image": source.image,
        "contract": json.dumps(source.contract),
        "canvases": source.canvases,
        "columns": source.columns,
    }
    decode: Any = _decode
    if not rows:
        return data.from_arrow(_table([], [], [], [])).iterator()
    return (
        data.from_items(rows, override_num_blocks=len(rows))
        .map_batches(decode, batch_size=1, batch_format="pyarrow", num_cpus=DECODE_CPUS, fn_kwargs=settings)
        .iterator()
    )


def _decode(
    batch: pa.Table, uri: str, image: str, contract: str, canvases: bool, columns: list[str]
) -> pa.Table:
    """Turn a descriptor into examples: the unit of work of a Ray Data task."""
    import torch

    from surveyproc.catalog import read_batches
    from surveyproc.training.examples import BATCH_ROWS, read_pixels

    torch.set_num_threads(1)
    row = batch.to_pylist()[0]
    wanted = np.frombuffer(row["wanted"], np.int64)
    joint = np.frombuffer(row["joint"], np.float32).reshape(len(wanted), -1)
    counts = np.frombuffer(row["counts"], np.float32).reshape(len(wanted), -1) if row["counts"] else None
    pieces = read_batches(
        uri,
        row["file"],
        [row["group"]],
        BATCH_ROWS,
        columns,
        expect=(row["size"], row["version"]),
    )
    numbers, pixels = [], []
    shape = InputContract.from_dict(json.loads(contract))
    for found, made in read_pixels(
        pieces, row["first"], wanted, ImageSpec.from_json(image), shape, canvases=canvases
    ):
        numbers.append(np.searchsorted(wanted, found))
        pixels += [p.tobytes() for p in made]
    places = np.concatenate(numbers) if numbers else np.empty(0, np.int64)
    return _table(
        row["position"] + places,
        pixels,
        [joint[p].tobytes() for p in places],
        [b"" if counts is None else counts[p].tobytes() for p in places],
    )


def _table(positions: Any, pixels: list[bytes], joint: list[bytes], counts: list[bytes]) -> pa.Table:
    return pa.table(
        {
            "position": pa.array(positions, pa.int64()),
            "pixels": pa.array(pixels, pa.large_binary()),
            "joint": pa.array(joint, pa.binary()),
            "counts": pa.array(counts, pa.binary()),
        }
    )


def collect(
    batches: Iterable[pa.Table], contract: InputContract, canvases: bool, kind: str = "float32"
) -> tuple[Examples, np.ndarray]:
    """Gather a worker's examples in the order of their positions; ``kind`` is the dtype of the pixels.

    Returns
    -------
    examples : Examples
    positions : numpy.ndarray
        Places in the split; those that could not be decoded are missing.
    """
    import torch

    from surveyproc.training.examples import Examples

    positions: list[np.ndarray] = []
    pixels: list[np.ndarray] = []
    targets: dict[str, list[np.ndarray]] = {"joint": [], "counts": []}
    dtype = np.dtype(kind)
    for table in batches:
        positions.append(table["position"].to_numpy())
        pixels += [np.frombuffer(value.as_buffer(), dtype).copy() for value in table["pixels"]]
        for name, found in targets.items():
            found += [np.frombuffer(value, np.float32) for value in table[name].to_pylist() if value]
    order = np.argsort(np.concatenate(positions)) if positions else np.empty(0, np.int64)
    if len(order) == 0:
        raise InputError(
            "no cutout of a worker's share can be decoded", where="--catalog", fix="ingest the images again"
        )
    bands = len(contract.bands) if canvases else contract.channels
    side = math.isqrt(len(pixels[0]) // bands)
    shape = (side, side, bands) if canvases else (bands, side, side)
    stacked = np.empty((len(order), *shape), dtype)
    for place, source in enumerate(order):
        stacked[place] = pixels[source].reshape(shape)
        pixels[source] = np.empty(0, dtype)
    joint, counts = (np.stack([t[i] for i in order]) if t else None for t in targets.values())
    examples = Examples(
        stacked, torch.from_numpy(joint), None if counts is None else torch.from_numpy(counts)
    )
    return examples, np.concatenate(positions)[order]


def lane_sizes(positions: np.ndarray, lanes: Lanes, owned: range) -> list[int]:
    """Examples that are there in each owned lane.

    Raises
    ------
    InputError
        When there is none in one.
    """
    edges = np.searchsorted(positions, [lanes.start(k) for k in range(owned.start, owned.stop + 1)])
    sizes = np.diff(edges).tolist()
    if 0 in sizes:
        raise InputError(
            "none of many cutouts in a row can be decoded", where="--catalog", fix="ingest the images again"
        )
    return sizes
