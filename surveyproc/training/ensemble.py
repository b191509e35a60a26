"""Make one bundle of several: `surveyproc.models.ensemble` of networks that were trained apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from surveyproc.cutouts import InputContract
from surveyproc.errors import InputError
from surveyproc.models.bundle import DOMAIN_PREFIX, Bundle
from surveyproc.models.ensemble import Ensemble, build
from surveyproc.training.bundle import finish_bundle
from surveyproc.training.domain import embed
from surveyproc.training.examples import Examples
from surveyproc.votes import VoteSchema

OVERSAMPLE = 2.0
OWN = ("size", "crop", "mean", "std")  # each member's; all other fields of the contract are shared
SHARED = tuple(f.name for f in fields(InputContract) if f.name not in OWN)


def shared_contract(bundles: Sequence[Bundle], oversample: float = OVERSAMPLE) -> InputContract:
    """The input from which every member's can be made.

    Parameters
    ----------
    bundles : sequence of Bundle
    oversample : float
        How much finer its pixels are than the finest member needs: each member resizes them once more.

    Raises
    ------
    InputError
        When the members' inputs are not of one kind.
    """
    contracts = [bundle.contract for bundle in bundles]
    first = contracts[0]
    odd = [name for name in SHARED if any(getattr(c, name) != getattr(first, name) for c in contracts)]
    if any(isinstance(value, tuple) for c in contracts for value in (c.mean, c.std)):
        odd.append("mean and std (one value each)")
    if any(
        bundle.record["outputs"] | {"embedding_size": 0}
        != bundles[0].record["outputs"] | {"embedding_size": 0}
        for bundle in bundles
    ):
        odd.append("vote_schema")
    if odd:
        raise InputError(
            f"the members of an ensemble differ in {', '.join(odd)}",
            where=", ".join(bundle.uri for bundle in bundles),
            fix="combine bundles that were trained on one catalog and one decision tree",
        )
    crop = max(c.crop for c in contracts)
    size = max(math.ceil(c.size * crop / c.crop) for c in contracts)
    return replace(first, crop=crop, size=round(size * oversample), mean=0.0, std=1.0)


def combine(
    bundles: Sequence[Bundle], contract: InputContract, examples: Examples
) -> tuple[Ensemble, dict[str, Any]]:
    """Build the ensemble and load the members' weights into it.

    Parameters
    ----------
    contract : InputContract
        From `shared_contract`.
    examples : Examples
        Prepared galaxies by which the members' features are brought to one scale: the mean of their features'
        variances is 1 to within a factor of two, so that in distances each counts by its number of features.

    Returns
    -------
    ensemble : Ensemble
    arguments : dict
        Of its ``build``.
    """
    members: list[dict[str, Any]] = []
    for bundle in bundles:
        own = bundle.contract
        seen = {
            "size": own.size,
            "crop": own.crop / contract.crop,
            "mean": own.mean,
            "std": own.std,
            "gain": 1.0,
        }
        members.append(
            {
                "architecture": bundle.record["architecture"],
                "arguments": bundle.record["arguments"],
                "input": seen,
            }
        )
    features = embed(_loaded(members, bundles), examples.pixels, views=1)
    sizes = [bundle.record["outputs"]["embedding_size"] for bundle in bundles]
    for member, part in zip(members, features.split(sizes, dim=1)):
        spread = float(part.var(0).mean().sqrt())
        member["input"]["gain"] = 2.0 ** round(-math.log2(spread))
    return _loaded(members, bundles), {"members": members}


def write_ensemble(
    output: str | Path,
    bundles: Sequence[Bundle],
    contract: InputContract,
    examples: dict[str, Examples],
    schema: VoteSchema,
    views: int,
) -> Bundle:
    """Combine, calibrate, judge on the test split, once, and write.

    Parameters
    ----------
    examples : dict
        From `training.examples.load_examples` with the ensemble's contract.
    views : int
        Symmetries that the engine averages.
    """
    ensemble, arguments = combine(bundles, contract, examples["calibration"])
    records = [bundle.record for bundle in bundles]
    trained = [record["training"] for record in records]
    record = {
        "architecture": "ensemble",
        "arguments": arguments,
        "input": contract.to_dict(),
        "outputs": records[0]["outputs"] | {"embedding_size": ensemble.embedding_size},
        "inference": {"views": views, "draws": max(r["inference"]["draws"] for r in records)},
        "training": {
            "data": trained[0]["data"],
            "split": trained[0]["split"],
            "galaxies": {split: len(examples[split].joint) for split in trained[0]["galaxies"]},
            "members": [
                {"name": bundle.name, "weights_sha256": bundle.sha256}
                | {key: bundle.record[key] for key in ("architecture", "arguments", "input")}
                | own
                for bundle, own in zip(bundles, trained)
            ],
            "versions": trained[0]["versions"],
        },
        "licence": records[0]["licence"],
        "citation": list(dict.fromkeys(paper for r in records for paper in r["citation"])),
    }
    return finish_bundle(output, record, ensemble, examples, schema, contract)


def _loaded(members: list[dict[str, Any]], bundles: Sequence[Bundle]) -> Ensemble:
    ensemble = build(members)
    weights: dict[str, torch.Tensor] = {}
    for number, bundle in enumerate(bundles):
        for name, tensor in bundle.tensors.items():
            if name.startswith(DOMAIN_PREFIX):
                continue
            place = f"encoder.members.{number}" if name.startswith("encoder.") else f"heads.{number}"
            weights[f"{place}.{name}"] = tensor.float()
    ensemble.load_state_dict(weights | {"concentration_scale": ensemble.concentration_scale})
    return ensemble.eval()
