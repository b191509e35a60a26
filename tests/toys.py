"""Tiny catalogs and bundles, made in a second, that go through the real code."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from surveyproc.catalog import CatalogWriter
from surveyproc.cutouts import ImageSpec, InputContract
from surveyproc.models.bundle import build_architecture, write_bundle
from surveyproc.votes import load_schema

SIZE = 16
SPEC = ImageSpec("raw", (SIZE, SIZE, 3), "uint8")


def toy_pixels(rows: int, seed: int = 0) -> np.ndarray:
    """Blobs of random place and brightness on noise."""
    rng = np.random.default_rng(seed)
    grid = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    centre = rng.uniform(4, 12, (rows, 2, 1, 1))
    width = rng.uniform(2, 12, (rows, 1, 1))
    blob = np.exp(-((grid[None] - centre) ** 2).sum(1) / width)
    colour = rng.uniform(60, 200, (rows, 1, 1, 3))
    noise = rng.integers(0, 40, (rows, SIZE, SIZE, 3))
    return (blob[..., None] * colour + noise).astype(np.uint8)


def toy_catalog(
    path: Path,
    rows: int = 200,
    group_rows: int = 10,
    positions: bool | tuple[np.ndarray, np.ndarray] = False,
    ids: list | None = None,
    pixels: np.ndarray | None = None,
    spec: ImageSpec = SPEC,
    one_group_per_file: bool = False,
) -> Path:
    """Write a raw catalog with small row groups, so that few rows make many shards.

    ``positions`` is True for random ones, or ``(ra, dec)`` in degrees.
    """
    rng = np.random.default_rng(1)
    pixels = toy_pixels(rows) if pixels is None else pixels
    ids = list(range(1000, 1000 + rows)) if ids is None else ids
    kind = pa.int64() if isinstance(ids[0], int) else pa.string()
    columns = {"object_id": pa.array(ids, kind)}
    if positions is not False:
        random = rng.uniform(0, 360, rows), np.degrees(np.arcsin(rng.uniform(-1, 1, rows)))
        ra, dec = random if positions is True else positions
        columns |= {"ra": pa.array(ra), "dec": pa.array(dec)}
    schema = pa.schema([(name, column.type) for name, column in columns.items()])
    file_bytes = 1 if one_group_per_file else 2**30
    with CatalogWriter(
        path, spec, schema, row_group_bytes=group_rows * spec.nbytes, file_bytes=file_bytes
    ) as writer:
        writer.write_pixels(pixels, columns)
    return path


def encoded_catalog(
    path: Path, images: list[bytes | None], ids: list | None = None, encoding: str = "jpeg"
) -> Path:
    """Write a catalog of encoded images as they are, good or bad."""
    ids = list(range(len(images))) if ids is None else ids
    spec = replace(SPEC, encoding=encoding)
    columns = {"object_id": pa.array(ids), "image": pa.array(images, pa.binary())}
    schema = pa.schema([("object_id", columns["object_id"].type)])
    with CatalogWriter(path, spec, schema, row_group_bytes=4096) as writer:
        writer.write(pa.table(columns))
    return path


def encode(pixels: np.ndarray, encoding: str = "jpeg") -> list[bytes]:
    """JPEG or PNG files of ``(N, H, W, 3)`` uint8 pixels."""
    files = []
    for image in pixels:
        sink = io.BytesIO()
        Image.fromarray(image).save(sink, encoding, quality=95)
        files.append(sink.getvalue())
    return files


def toy_bundle(
    path: Path, name: str = "toy", seed: int = 0, bands: tuple = ("R", "G", "B"), **inference
) -> Path:
    """Write a bundle of a small untrained ResNet with a Galaxy Challenge head."""
    torch.manual_seed(seed)
    votes = load_schema("galaxy-challenge")
    arguments = {
        "encoder": "resnet10t",
        "encoder_arguments": {"channels": [8, 8, 16, 16], "stem_width": 8},
        "answers": [len(q.answers) for q in votes.questions],
        "in_chans": len(bands),
    }
    model = build_architecture("morphology", arguments)
    state = dict(model.state_dict())
    size = model.embedding_size
    record = {
        "name": name,
        "architecture": "morphology",
        "arguments": arguments,
        "input": InputContract(bands=bands, size=SIZE).to_dict(),
        "outputs": {"embedding_size": size, "vote_schema": votes.to_dict()},
        "inference": {"views": 2, "draws": 2} | inference,
        "cost": {"ms_per_cutout": 1.0},
    }
    state["domain.centre"] = torch.zeros(size)
    state["domain.centroids"] = torch.randn(4, size)
    state["domain.quantiles"] = torch.linspace(0, 1, 101)
    write_bundle(path, record, state)
    return path
