"""One training from catalog and labels to a bundle: claim the workspace, train or resume, judge, write."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surveyproc.catalog import Catalog, open_catalog
from surveyproc.cutouts import InputContract
from surveyproc.errors import UsageError
from surveyproc.images.inputs import complete
from surveyproc.models.bundle import open_bundle
from surveyproc.training.bundle import write_morphology_bundle
from surveyproc.training.examples import Examples, Joined, join_labels, load_examples
from surveyproc.training.loop import train
from surveyproc.training.recipe import Recipe
from surveyproc.training.workspace import Workspace
from surveyproc.votes import VoteSchema, load_schema
from surveyproc.votes.labels import Labels, read_labels

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes
    ----------
    catalog, labels, id_column, schema, values, output : str
        Where things are and what the labels hold; ``output`` is a local folder.
    recipe : Recipe
    settings : dict
        ``train.*``: the recipe's, the input contract's, and ``views`` and ``draws`` of the bundle.
    data, citation
        Words for the model card.
    """

    catalog: str
    labels: str
    output: str
    recipe: Recipe
    settings: dict[str, Any]
    id_column: str | None = None
    schema: str = "galaxy-challenge"
    values: str | None = None
    data: str = ""
    citation: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Training:
    """A request with everything opened and checked, before any pixel is read."""

    request: Request
    catalog: Catalog
    labels: Labels
    schema: VoteSchema
    contract: InputContract
    joined: Joined

    @property
    def settings(self) -> dict[str, Any]:
        """All that shapes the weights: what a resumed training must share."""
        return {
            "train": {**self.request.settings, **asdict(self.request.recipe)},
            "vote_schema": _digest(json.dumps(self.schema.to_dict(), sort_keys=True).encode()),
            "data": {
                "catalog": catalog_digest(self.catalog),
                "labels": labels_digest(self.labels),
                "galaxies": {split: len(rows) for split, rows in self.joined.rows.items()},
            },
        }


@dataclass(frozen=True)
class Result:
    """What a training ended with."""

    output: str
    metrics: dict[str, Any]
    log: dict[str, Any]
    nothing_to_do: bool = False


Trained = tuple[torch.nn.Module, dict[str, Any], dict[str, Examples] | None]
Trainer = Callable[[Training, Workspace, Say], Trained]


def plan(request: Request, say: Say = lambda line: None) -> Training:
    """Open everything a training needs and say what was joined with what.

    Raises
    ------
    UsageError, InputError
        When something cannot be trained on.
    """
    if "://" in request.output:
        raise UsageError(
            "a bundle is trained into a local folder",
            where=request.output,
            fix="copy it to the store afterwards",
        )
    schema = load_schema(request.schema)
    contract = InputContract.from_dict({"bands": ["R", "G", "B"], "stretch": "display", **request.settings})
    labels = read_labels(request.labels, schema, request.id_column, request.values, say)
    catalog = open_catalog(request.catalog)
    contract = complete(contract, catalog.image)
    joined = join_labels(catalog, labels, contract, say)
    return Training(request, catalog, labels, schema, contract, joined)


def train_here(
    training: Training,
    workspace: Workspace,
    say: Say,
    read: dict[Any, dict[str, Examples]] | None = None,
) -> Trained:
    """Train in this process; gives the model, its log and the examples that were read.

    ``read`` holds the examples between trainings on the same catalog and labels, by input contract.
    """
    read = {} if read is None else read
    if training.contract not in read:
        read.clear()
        read[training.contract] = load_examples(
            training.catalog, training.labels, training.contract, say, training.joined
        )
    examples = read[training.contract]
    model, log = train(
        examples["train"],
        examples["validation"],
        training.schema,
        training.contract,
        training.request.recipe,
        say,
        keeper=workspace,
    )
    return model, log, examples


def train_weights(
    training: Training,
    say: Say = lambda line: None,
    *,
    overwrite: bool = False,
    trainer: Trainer = train_here,
) -> dict[str, Any]:
    """Train or resume in the workspace beside the output and return the log; the test split is not looked at."""
    with Workspace.of(training.request.output, say) as workspace:
        if overwrite:
            workspace.clear()
        workspace.begin(training.settings)
        return trainer(training, workspace, say)[1]


def train_bundle(
    training: Training,
    say: Say = lambda line: None,
    *,
    overwrite: bool = False,
    trainer: Trainer = train_here,
) -> Result:
    """Train or resume in the workspace beside the output, then judge the model on the test split, once.

    Parameters
    ----------
    trainer : callable
        Does the training itself: in this process, or on a cluster. Where it has not read the examples of all
        splits, they are read here.

    Raises
    ------
    UsageError
        When the output is there and was not made with these settings and data.
    """
    request, output = training.request, Path(training.request.output)
    there = (output / "model.json").exists()
    with Workspace.of(output, say) as workspace:
        if overwrite:
            workspace.clear()
        elif there and not (workspace.folder / "recipe.json").exists():
            raise UsageError(
                "there is a bundle already", where=str(output), fix="pass another --output, or --overwrite"
            )
        workspace.begin(training.settings)
        if there and not overwrite:
            record = open_bundle(str(output)).record
            return Result(str(output), record["metrics"], record["training"], nothing_to_do=True)
        model, log, examples = trainer(training, workspace, say)
        made = workspace.folder / "bundle" / output.name
        shutil.rmtree(made.parent, ignore_errors=True)
        bundle = write_morphology_bundle(
            made,
            model,
            examples
            or load_examples(training.catalog, training.labels, training.contract, joined=training.joined),
            training.schema,
            training.contract,
            request.recipe,
            log,
            views=request.settings["views"],
            draws=request.settings["draws"],
            data=request.data,
            citation=request.citation,
        )
        if there:
            shutil.rmtree(output)
        os.replace(made, output)
        made.parent.rmdir()
    return Result(str(output), bundle.record["metrics"], log)


def catalog_digest(catalog: Catalog) -> str:
    """Identity of a catalog's files: names, sizes, versions."""
    files = [(f.path, f.size, f.version, f.rows) for f in catalog.files]
    return _digest(json.dumps([catalog.image.to_json(), files]).encode())


def labels_digest(labels: Labels) -> str:
    """Identity of labels: ids, values, counts."""
    counts = labels.counts
    parts = ["\n".join(labels.ids).encode(), np.ascontiguousarray(labels.joint).tobytes()]
    parts += [] if counts is None else [np.ascontiguousarray(counts).tobytes()]
    return _digest(*parts)


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]
