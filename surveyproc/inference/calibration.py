"""Are the predicted spreads honest: coverage of vote counts, and the scale that makes them so.

The model says of a galaxy an equal-weight mixture of M Dirichlet distributions (views and dropout draws). Of
N volunteers who answer a question, the number who give answer k then follows the mixture of
BetaBinomial(N, a_k, A - a_k). Coverage is judged on these counts: an observed fraction carries the noise of
few votes, and many are exactly 0, which no continuous interval contains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from surveyproc.identifiers import splitmix64
from surveyproc.votes import VoteSchema

LEVEL = 0.9
MIN_VOTES = 5  # fewer say too little about a spread
MIN_GALAXIES = 30  # a question with fewer takes the scale of all questions together
SCALES = (2.0**-7, 2.0**5)
OCTAVES = 12
STEPS = 14


@dataclass(frozen=True)
class ScaleFit:
    """Factors on the concentrations of each question.

    Attributes
    ----------
    scale : numpy.ndarray
        ``(Q,)`` float64.
    galaxies : numpy.ndarray
        ``(Q,)`` galaxies with at least `MIN_VOTES` votes.
    pooled : tuple of str
        Questions with too few galaxies: their factor is that of all questions together.
    out_of_reach : tuple of str
        Questions whose coverage does not reach the level within `SCALES`: their factor comes nearest to it.
    """

    scale: np.ndarray
    galaxies: np.ndarray
    pooled: tuple[str, ...]
    out_of_reach: tuple[str, ...]


def whole_counts(counts: np.ndarray, schema: VoteSchema) -> np.ndarray:
    """Round ``(N, K)`` votes to whole numbers that add up to the rounded votes of their question.

    The largest remainders are rounded up, of equal ones the first.
    """
    found = np.zeros(np.shape(counts), dtype=np.int64)
    for s in schema.slices.values():
        votes = np.asarray(counts, dtype=np.float64)[:, s]
        asked = votes.sum(1, keepdims=True)
        number = np.round(asked)
        share = np.divide(votes, asked, out=np.zeros_like(votes), where=asked > 0) * number
        floor = np.floor(share + 1e-9)
        missing = number - floor.sum(1, keepdims=True)
        rank = np.argsort(np.argsort(floor - share, axis=1, kind="stable"), axis=1, kind="stable")
        found[:, s] = floor + (rank < missing)
    return found


def vote_tails(
    components: np.ndarray, counts: np.ndarray, schema: VoteSchema
) -> tuple[np.ndarray, np.ndarray]:
    r"""Predictive probability of fewer votes than were cast, and of exactly as many.

    Parameters
    ----------
    components : numpy.ndarray
        ``(M, N, K)`` concentrations.
    counts : numpy.ndarray
        ``(N, K)`` whole votes.

    Returns
    -------
    below, at : numpy.ndarray
        ``(N, K)``: :math:`F(x-1)` and :math:`P(x)` of the mixture of beta-binomials.

    Notes
    -----
    :math:`P(0) = \Gamma(b+N)\,\Gamma(a+b)/(\Gamma(b)\,\Gamma(a+b+N))` with :math:`b = A - a`, and
    :math:`P(j+1)/P(j) = \frac{N-j}{j+1}\,\frac{a+j}{b+N-j-1}`: no sum over answers is needed.
    """
    components = np.asarray(components, dtype=np.float64)
    below, at = np.zeros(counts.shape), np.zeros(counts.shape)
    for s in schema.slices.values():
        total, number = components[..., s].sum(-1), counts[:, s].sum(1)
        for k in range(s.start, s.stop):
            below[:, k], at[:, k] = _tails(components[..., k], total, number, counts[:, k])
    return below, at


def inside(below: np.ndarray, at: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """Probability that the randomised PIT ``u = F(x - 1) + v P(x)`` lies in the central interval.

    ``v`` is uniform on [0, 1]; over it the probability is the share of ``[F(x - 1), F(x)]`` inside
    ``[(1 - level) / 2, (1 + level) / 2]``. For votes that follow the prediction its mean is ``level``.
    """
    low, high = (1 - level) / 2, (1 + level) / 2
    overlap = np.clip(below + at, low, high) - np.clip(below, low, high)
    impossible = at < 1e-14
    share = np.divide(overlap, at, out=np.zeros_like(overlap), where=~impossible)
    return np.where(impossible, (below >= low) & (below <= high), share)


def randomised_pit(below: np.ndarray, at: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """``(N, K)`` values ``u = F(x - 1) + v P(x)``, uniform for honest predictions; v is keyed by object.

    Parameters
    ----------
    below, at : numpy.ndarray
        From `vote_tails`.
    keys : numpy.ndarray
        ``(N,)`` uint64 hashes of the ids.
    """
    with np.errstate(over="ignore"):
        answers = np.arange(1, below.shape[1] + 1, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95)
        bits = splitmix64(keys[:, None] + answers)
    return below + (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53 * at


def coverage(
    components: np.ndarray, counts: np.ndarray, schema: VoteSchema, keys: np.ndarray, level: float = LEVEL
) -> dict[str, Any]:
    """How often the central intervals of predicted votes hold the votes that were cast.

    Parameters
    ----------
    components : numpy.ndarray
        ``(M, N, K)`` concentrations.
    counts : numpy.ndarray
        ``(N, K)`` votes; rounded by `whole_counts`. Questions with fewer than `MIN_VOTES` votes of a galaxy
        do not count.
    keys : numpy.ndarray
        ``(N,)`` uint64 hashes of the ids.

    Returns
    -------
    dict
        ``level``, ``min_votes``, ``pooled`` over all answers and ``questions``; each with ``n`` (galaxies times
        answers), ``galaxies``, ``coverage`` (expectation over v), ``randomised`` (share of u inside) and
        ``range99``, where 99 % of the shares of that many independent galaxies would lie. A question without
        a galaxy has None.
    """
    votes = whole_counts(counts, schema)
    below, at = vote_tails(components, votes, schema)
    expected = inside(below, at, level)
    u = randomised_pit(below, at, keys)
    drawn = (u >= (1 - level) / 2) & (u <= (1 + level) / 2)
    enough = _number(votes, schema) >= MIN_VOTES
    figures = {
        name: _share(expected[enough[:, q], s], drawn[enough[:, q], s], int(enough[:, q].sum()), level)
        for q, (name, s) in enumerate(schema.slices.items())
    }
    chosen = enough[:, schema.question_of]
    pooled = _share(expected[chosen], drawn[chosen], int(enough.any(1).sum()), level)
    return {"level": level, "min_votes": MIN_VOTES, "pooled": pooled, "questions": figures}


def fit_scale(
    components: np.ndarray, counts: np.ndarray, schema: VoteSchema, level: float = LEVEL
) -> ScaleFit:
    """Find for each question the factor on all its concentrations that makes the intervals cover at ``level``.

    Means do not move. The expected coverage (`inside`) falls as the factor grows, but for tiny factors, where a
    distribution is all at the ends; the root nearest to 1 is found by bisection in log space. Maximum likelihood was tried: it trades the tails against the middle and left
    single questions 2 % off (``docs/decisions.md``).

    Parameters
    ----------
    components : numpy.ndarray
        ``(M, N, K)`` concentrations of galaxies the model did not train on.
    counts : numpy.ndarray
        ``(N, K)`` votes.
    """
    votes = whole_counts(counts, schema)
    enough = _number(votes, schema) >= MIN_VOTES
    galaxies = enough.sum(0)
    components = np.asarray(components, dtype=np.float64)
    blocks = [
        (components[:, rows][..., s], votes[rows, s])
        for rows, s in zip(enough.T, schema.slices.values(), strict=True)
    ]
    names = list(schema.slices)
    scale, reached = np.ones(len(names)), np.ones(len(names), dtype=bool)
    few = galaxies < MIN_GALAXIES
    for q in np.flatnonzero(~few):
        scale[q], reached[q] = _root([blocks[q]], level)
    if few.any() and galaxies.any():
        together, found = _root([block for block, n in zip(blocks, galaxies, strict=True) if n], level)
        scale[few], reached[few] = together, found
    return ScaleFit(
        scale,
        galaxies,
        tuple(name for name, is_few in zip(names, few, strict=True) if is_few),
        tuple(name for name, ok in zip(names, reached, strict=True) if not ok),
    )


def scaled(components: np.ndarray, scale: np.ndarray, schema: VoteSchema) -> np.ndarray:
    """Multiply ``(..., K)`` concentrations by the ``(Q,)`` factors of their questions."""
    return components * scale[schema.question_of]


def binomial_range(n: int, p: float, probability: float = 0.99) -> list[float]:
    """Shares of n independent trials between which the central ``probability`` of outcomes lies."""
    k = torch.arange(n + 1, dtype=torch.float64)
    log_p = (
        torch.lgamma(torch.tensor(n + 1.0, dtype=torch.float64))
        - torch.lgamma(k + 1)
        - torch.lgamma(n - k + 1)
    )
    cdf = (log_p + k * np.log(p) + (n - k) * np.log1p(-p)).exp().cumsum(0)
    bounds = torch.searchsorted(cdf, torch.tensor([(1 - probability) / 2, (1 + probability) / 2]).double())
    return [float(bound) / n for bound in bounds.clamp(max=n)]


def _tails(
    alpha: np.ndarray, total: np.ndarray, number: np.ndarray, votes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    beta = total - alpha
    log_p = _lgamma(beta + number) - _lgamma(beta) + _lgamma(total) - _lgamma(total + number)
    below, at = np.zeros(len(votes)), np.zeros(len(votes))
    for j in range(int(votes.max(initial=0)) + 1):
        p = np.exp(log_p).mean(0)
        below += np.where(j < votes, p, 0.0)
        at += np.where(j == votes, p, 0.0)
        left = np.maximum(number - j, 1)  # from the last vote on nothing is read any more
        log_p += np.log(left / (j + 1) * (alpha + j) / (beta + left - 1))
    return below, at


def _lgamma(values: np.ndarray) -> np.ndarray:
    return torch.lgamma(torch.from_numpy(values)).numpy()


def _number(votes: np.ndarray, schema: VoteSchema) -> np.ndarray:
    """``(N, Q)`` votes of each question."""
    return np.stack([votes[:, s].sum(1) for s in schema.slices.values()], axis=1)


def _share(expected: np.ndarray, drawn: np.ndarray, galaxies: int, level: float) -> dict[str, Any]:
    seen = bool(expected.size)
    return {
        "n": int(expected.size),
        "galaxies": galaxies,
        "coverage": float(expected.mean()) if seen else None,
        "randomised": float(drawn.mean()) if seen else None,
        "range99": binomial_range(galaxies, level) if seen else None,
    }


def _root(blocks: list[tuple[np.ndarray, np.ndarray]], level: float) -> tuple[float, bool]:
    """Scale at which the blocks together cover at ``level``, and whether there is one in `SCALES`."""

    def excess(scale: float) -> float:
        shares = []
        for components, votes in blocks:
            a, number = components * scale, votes.sum(1)
            total = a.sum(-1)
            shares += [
                inside(*_tails(a[..., k], total, number, votes[:, k]), level) for k in range(votes.shape[1])
            ]
        return float(np.concatenate(shares).mean()) - level

    grid = np.linspace(np.log(SCALES[0]), np.log(SCALES[1]), OCTAVES + 1)
    found = np.array([excess(float(np.exp(x))) for x in grid])
    falls = np.flatnonzero((found[:-1] > 0) & (found[1:] <= 0))
    if not len(falls):
        return float(np.exp(grid[np.abs(found).argmin()])), False
    nearest = falls[np.abs(grid[falls]).argmin()]
    low, high = grid[nearest], grid[nearest + 1]
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(float(np.exp(middle))) > 0 else (low, middle)
    return float(np.exp((low + high) / 2)), True
