"""What a morphology model is trained to do: match joint vote fractions, say how sure it is, or choose a class.

Every loss takes ``(N, K)`` concentrations, an ``(N, K)`` target and the VoteSchema and returns ``(N,)``. Targets are
checked once by `check_targets`, never inside a step.
"""

from __future__ import annotations

import numpy as np
import torch

from surveyproc.errors import InputError
from surveyproc.votes import VoteSchema


def mean_fractions(concentrations: torch.Tensor, schema: VoteSchema) -> torch.Tensor:
    """``(..., K)`` expected fraction of each answer given that its question is asked: ``a_k / sum a``."""
    questions = (concentrations[..., s] for s in schema.slices.values())
    return torch.cat([a / a.sum(-1, keepdim=True) for a in questions], dim=-1)


def joint_means(fractions: torch.Tensor, schema: VoteSchema) -> torch.Tensor:
    """``(N, K)`` joint values of conditional fractions, differentiable (`VoteSchema.joint` in torch)."""
    blocks = [fractions[:, s] for s in schema.slices.values()]
    joint: dict[int, torch.Tensor] = {}
    offsets = [s.start for s in schema.slices.values()]
    for q in schema.asking_order:
        parents = schema.parent_columns[q]
        if not parents:
            joint[q] = blocks[q]
            continue
        owners = [int(schema.question_of[p]) for p in parents]
        columns = [joint[o][:, p - offsets[o]] for o, p in zip(owners, parents)]
        joint[q] = blocks[q] * torch.stack(columns).sum(0)[:, None]
    return torch.cat([joint[q] for q in range(len(blocks))], dim=1)


def squared_error(
    concentrations: torch.Tensor,
    joint: torch.Tensor,
    schema: VoteSchema,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """``(N,)`` sum over answers of the squared error of the joint values (what the RMSE measures).

    ``weights`` are ``(K,)`` factors of the answers, e.g. from `class_weights`, or ``(N, K)`` with 0 for missing values.
    """
    predicted = joint_means(mean_fractions(_precise(concentrations), schema), schema)
    error = (predicted - joint).square()
    return (error if weights is None else error * weights).sum(1)


def dirichlet_multinomial_nll(
    concentrations: torch.Tensor,
    counts: torch.Tensor,
    schema: VoteSchema,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Negative log likelihood of vote counts, summed over the questions.

    For each question with counts ``x`` (``N = sum x``) and concentrations ``a`` (``A = sum a``):
    ``-log P = -[lgamma(N+1) + lgamma(A) - lgamma(N+A) + sum(lgamma(x+a) - lgamma(a) - lgamma(x+1))]``
    (Walmsley et al. 2022, MNRAS 509, 3966, section 4.2). A question without votes adds 0 and no gradient.

    The differences are taken in float64: at a total concentration of 10,000 the terms are near 1e5, where the last
    digit of a float32 is 0.008.

    Parameters
    ----------
    concentrations, counts : torch.Tensor
        ``(N, K)``; counts need not be whole numbers.
    weights : torch.Tensor, optional
        ``(K,)`` factors of the answers; a question counts by the mean factor of the votes it got.

    Returns
    -------
    torch.Tensor
        ``(N,)`` in nats.
    """
    precise = _precise(concentrations)
    total = precise.new_zeros(len(precise))
    for s in schema.slices.values():
        a, x = precise[:, s].double(), counts[:, s].double()
        big_a, n = a.sum(1), x.sum(1)
        log_p = torch.lgamma(n + 1) + torch.lgamma(big_a) - torch.lgamma(n + big_a)
        log_p = log_p + (torch.lgamma(x + a) - torch.lgamma(a) - torch.lgamma(x + 1)).sum(1)
        if weights is not None:
            log_p = log_p * (x * weights[s]).sum(1) / n.clamp_min(1e-12)
        total = total - log_p.to(total.dtype)
    return total


def class_cross_entropy(
    concentrations: torch.Tensor,
    joint: torch.Tensor,
    schema: VoteSchema,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""Cross entropy of the expected fractions against the volunteers', in nats: plain classification.

    :math:`\sum_q P(q) \sum_k f_k (-\log p_k) = -\sum_k j_k \log p_k` with conditional fractions ``f``, proportions
    asked ``P`` and joint values ``j = P f``: a question counts as far as it was asked, and not at all where it was
    not. With one question and one-hot labels it is the usual cross entropy.

    Parameters
    ----------
    concentrations, joint : torch.Tensor
        ``(N, K)``.
    weights : torch.Tensor, optional
        ``(K,)`` factors of the answers.

    Returns
    -------
    torch.Tensor
        ``(N,)``.
    """
    log_p = mean_fractions(_precise(concentrations), schema).log()
    return -((joint if weights is None else joint * weights) * log_p).sum(1)


def class_weights(joint: np.ndarray, schema: VoteSchema, cap: float = 10.0) -> torch.Tensor:
    """Weigh answers by the inverse of how often they are given, question by question.

    Parameters
    ----------
    joint : numpy.ndarray
        ``(N, K)`` joint values (or counts) of the training split.
    cap : float
        Largest weight, also of answers nobody gave.

    Returns
    -------
    torch.Tensor
        ``(K,)`` float32: ``min(1 / (answers x share of the question's votes), cap)``, so that the mean over a
        question's votes is 1 where the cap does not bite; 1 for questions nobody was asked.
    """
    given = np.asarray(joint, dtype=np.float64).sum(axis=0)
    weights = np.ones(len(given))
    for s in schema.slices.values():
        if (total := given[s].sum()) > 0:
            share = len(given[s]) * given[s] / total
            weights[s] = np.minimum(1.0 / np.maximum(share, 1e-12), cap)
    return torch.from_numpy(weights).float()


def check_targets(joint: np.ndarray, counts: np.ndarray | None, schema: VoteSchema) -> None:
    """Refuse targets that no loss may see, all of them at once; call it before the first step.

    Parameters
    ----------
    joint : numpy.ndarray
        ``(N, K)`` joint values; every question nobody answered is 0.
    counts : numpy.ndarray or None
        ``(N, K)`` votes.

    Raises
    ------
    InputError
        Naming each column with a NaN or negative value, or joint values above 1, and how many rows have one.
    """
    found = []
    for what, values, lowest in (("joint values", joint, -1e-6), ("vote counts", counts, 0.0)):
        if values is None:
            continue
        if np.shape(values)[1:] != (len(schema.columns),):
            raise InputError(
                f"{what} have the shape {np.shape(values)}; {schema.name!r} has {len(schema.columns)} answers",
                fix="give one column for each answer of the VoteSchema",
            )
        values = np.asarray(values, dtype=np.float64)
        kinds = {"not finite": ~np.isfinite(values), "negative": values < lowest}
        if what == "joint values":
            kinds["above 1"] = values > 1 + 1e-6
        for kind, wrong in kinds.items():
            for k in np.flatnonzero(wrong.any(axis=0)):
                rows = np.flatnonzero(wrong[:, k])
                found.append(f"{schema.columns[k]}: {len(rows)} {what} are {kind}, first in row {rows[0]}")
    if found:
        raise InputError(
            "the training targets cannot be used:\n    " + "\n    ".join(found),
            fix="write 0 where nobody was asked, and leave out galaxies without labels",
        )


def _precise(values: torch.Tensor) -> torch.Tensor:
    """At least float32, whatever an autocast around the model made of it."""
    return values if values.dtype == torch.float64 else values.float()
