"""Calibrate a trained model on galaxies that did not train it, and judge it on the test split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from surveyproc.inference.calibration import coverage, fit_scale, scaled
from surveyproc.inference.components import mixture_components
from surveyproc.inference.likelihood import vote_log_likelihood
from surveyproc.inference.symmetries import encode_views
from surveyproc.training.examples import Examples
from surveyproc.training.predict import joint_values
from surveyproc.votes import VoteSchema, pseudo_counts
from surveyproc.votes.metrics import compare, kaggle_rmse, known_joint, known_mean, question_figures

FIT_SPLITS = ("calibration", "validation")
MOST_GALAXIES = 5000  # chosen by their keys: enough to know a coverage to 0.4 %


@torch.inference_mode()
def predict_components(
    model: Any,
    prepared: np.ndarray,
    keys: np.ndarray,
    schema: VoteSchema,
    views: int,
    draws: int,
    rows: np.ndarray | None = None,
    batch: int = 64,
) -> tuple[np.ndarray, np.ndarray]:
    """Concentrations of every view and keyed dropout draw, as the engine makes them, and joint values without dropout.

    Parameters
    ----------
    prepared : numpy.ndarray
        ``(N, C, size, size)`` float32, from `images.views.prepare`.
    keys : numpy.ndarray
        ``(N,)`` uint64 hashes of the ids.
    rows : numpy.ndarray, optional
        Those of which concentrations are wanted, ascending; all when left out.

    Returns
    -------
    components : numpy.ndarray
        ``(components, rows, K)`` float32: `surveyproc.inference.components`.
    joint : numpy.ndarray
        ``(N, K)`` float64: `surveyproc.training.predict.joint_values` of the same features.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    found, joint = [], []
    wanted = np.ones(len(prepared), bool) if rows is None else np.isin(np.arange(len(prepared)), rows)
    for start in range(0, len(prepared), batch):
        images = torch.from_numpy(prepared[start : start + batch]).to(device)
        features = encode_views(model, images, views)
        components = mixture_components(model, features, keys[start : start + batch], draws).cpu().numpy()
        found.append(components.compress(wanted[start : start + batch], axis=1))
        joint.append(joint_values(model, features, schema).double().cpu().numpy())
    return np.concatenate(found, axis=1), np.concatenate(joint)


def calibrate(
    model: Any, examples: dict[str, Examples], schema: VoteSchema, views: int, draws: int
) -> dict[str, Any]:
    """Set the model's ``concentration_scale`` so that its 90 % intervals of votes hold 90 % of them.

    The factors are found on the calibration and the validation split together. Validation galaxies chose
    among recipes but never moved a weight, which hardly touches how wide the residuals are, and with twice the
    galaxies the coverage on others scatters by a fifth less (``docs/decisions.md``).

    Returns
    -------
    dict
        ``calibration`` of model.json: ``splits``, ``level``, ``min_votes``, ``votes``, ``pooled`` and
        ``questions`` with ``scale``, ``galaxies``, ``coverage_raw`` and ``coverage`` on these splits; ``note``
        where a question takes the scale of all, or none reaches the level.
    """
    parts = [_spread(model, examples[split], schema, views, draws) for split in FIT_SPLITS]
    components = np.concatenate([p.components for p in parts], axis=1)
    votes, keys = (np.concatenate([getattr(p, name) for p in parts]) for name in ("votes", "keys"))
    fit = fit_scale(components, votes, schema)
    with torch.no_grad():
        factors = torch.from_numpy(fit.scale[schema.question_of]).to(model.concentration_scale)
        model.concentration_scale.copy_((model.concentration_scale * factors).half())
    raw = coverage(components, votes, schema, keys)
    after = coverage(scaled(components, fit.scale, schema), votes, schema, keys)
    questions: dict[str, dict[str, Any]] = {}
    for q, name in enumerate(schema.slices):
        questions[name] = {
            "scale": float(f"{fit.scale[q]:.6g}"),
            "galaxies": int(fit.galaxies[q]),
            "coverage_raw": _rounded(raw["questions"][name]["coverage"]),
            "coverage": _rounded(after["questions"][name]["coverage"]),
        }
        notes = ["too few galaxies: the scale of all questions together"] if name in fit.pooled else []
        notes += ["no scale reaches the level"] if name in fit.out_of_reach else []
        if notes:
            questions[name]["note"] = "; ".join(notes)
    return {
        "splits": list(FIT_SPLITS),
        "level": raw["level"],
        "min_votes": raw["min_votes"],
        "votes": describe_votes(examples["calibration"], schema),
        "pooled": {
            "coverage_raw": _rounded(raw["pooled"]["coverage"]),
            "coverage": _rounded(after["pooled"]["coverage"]),
        },
        "questions": questions,
    }


def scales_of(calibration: dict[str, Any]) -> np.ndarray:
    """``(Q,)`` factors that `calibrate` applied."""
    return np.array([entry["scale"] for entry in calibration["questions"].values()])


def judge(
    model: Any, examples: dict[str, Examples], schema: VoteSchema, views: int, draws: int, scales: np.ndarray
) -> dict[str, Any]:
    """Measure a calibrated model on the test split, once.

    Parameters
    ----------
    scales : numpy.ndarray
        ``(Q,)`` factors that calibration applied: raw figures divide by them.

    Returns
    -------
    dict
        ``metrics`` of model.json. Point figures are of the views without dropout; ``coverage`` and
        ``log_likelihood`` (nats for each galaxy), raw and calibrated, of the mixture of all draws.
    """
    test = examples["test"]
    joint = test.joint.double().numpy()
    mean = known_mean(known_joint(examples["train"].joint.double().numpy(), schema))
    spread = _spread(model, test, schema, views, draws)
    components, votes, keys = spread.components, spread.votes, spread.keys
    raw = scaled(components, 1 / scales, schema)
    both = compare(schema.conditional(spread.joint), joint, schema)
    rmse, figures = kaggle_rmse(both.joint, both.said_joint), question_figures(both)
    return {
        "split": "test",
        "n": len(joint),
        "summary": f"RMSE {rmse:.4f} (n={len(joint)})",
        "rmse": round(rmse, 5),
        "rmse_of_the_training_mean": round(
            kaggle_rmse(np.broadcast_to(mean, joint.shape), both.said_joint), 5
        ),
        "rmse_by_question": {name: _rounded(f["rmse"]) for name, f in figures.items()},
        "questions": {name: {k: _rounded(v) for k, v in f.items()} for name, f in figures.items()},
        "votes": describe_votes(test, schema),
        "coverage": {
            "raw": _tidy(coverage(raw, votes, schema, keys)),
            "calibrated": _tidy(coverage(components, votes, schema, keys)),
        },
        "log_likelihood": {
            "raw": _rounded(float(vote_log_likelihood(raw, votes, schema).sum(1).mean())),
            "calibrated": _rounded(float(vote_log_likelihood(components, votes, schema).sum(1).mean())),
        },
    }


def describe_votes(examples: Examples, schema: VoteSchema) -> str:
    """``counts``, or how pseudo-counts were made."""
    if examples.counts is not None:
        return "counts"
    return f"pseudo-counts: the labels are fractions; round({schema.votes_per_galaxy} x proportion asked)"


@dataclass(frozen=True)
class _Spread:
    """Joint values of all galaxies of a split, and components, votes and keys of `MOST_GALAXIES` of them at most."""

    joint: np.ndarray
    components: np.ndarray
    votes: np.ndarray
    keys: np.ndarray


def _spread(model: Any, examples: Examples, schema: VoteSchema, views: int, draws: int) -> _Spread:
    if examples.keys is None:
        raise ValueError("examples that calibrate or judge need keys")
    rows = np.sort(np.argsort(examples.keys, kind="stable")[:MOST_GALAXIES])
    if examples.counts is None:
        votes = pseudo_counts(examples.joint[rows].double().numpy(), schema)
    else:
        votes = examples.counts[rows].double().numpy()
    components, joint = predict_components(model, examples.pixels, examples.keys, schema, views, draws, rows)
    return _Spread(joint, components, votes, examples.keys[rows])


def _tidy(figures: dict[str, Any]) -> dict[str, Any]:
    def short(entry: dict[str, Any]) -> dict[str, Any]:
        return {
            k: [_rounded(bound) for bound in v] if isinstance(v, list) else _rounded(v)
            for k, v in entry.items()
        }

    return {
        "pooled": short(figures["pooled"]),
        "questions": {name: short(entry) for name, entry in figures["questions"].items()},
    }


def _rounded(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value
