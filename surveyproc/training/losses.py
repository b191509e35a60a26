"""What a morphology model is trained to do: match joint vote fractions, and say how sure it is."""

from __future__ import annotations

import torch

from surveyproc.votes import VoteSchema


def mean_fractions(concentrations: torch.Tensor, schema: VoteSchema) -> torch.Tensor:
    """``(N, K)`` expected fraction of each answer given that its question is asked: ``a_k / sum a``."""
    return torch.cat(
        [a / a.sum(1, keepdim=True) for a in (concentrations[:, s] for s in schema.slices.values())], dim=1
    )


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


def squared_error(concentrations: torch.Tensor, joint: torch.Tensor, schema: VoteSchema) -> torch.Tensor:
    """``(N,)`` sum over answers of the squared error of the joint values (what the RMSE measures)."""
    predicted = joint_means(mean_fractions(concentrations, schema), schema)
    return (predicted - joint).square().sum(1)


def dirichlet_multinomial_nll(
    concentrations: torch.Tensor, counts: torch.Tensor, schema: VoteSchema
) -> torch.Tensor:
    """Negative log likelihood of vote counts, summed over the questions.

    For each question with counts ``x`` (``N = sum x``) and concentrations ``a`` (``A = sum a``):
    ``-log P = -[lgamma(N+1) + lgamma(A) - lgamma(N+A) + sum(lgamma(x+a) - lgamma(a) - lgamma(x+1))]``
    (Walmsley et al. 2022, MNRAS 509, 3966, section 4.2). A question without votes adds 0 and no gradient.

    Parameters
    ----------
    concentrations, counts : torch.Tensor
        ``(N, K)`` float32 each; counts need not be whole numbers.

    Returns
    -------
    torch.Tensor
        ``(N,)`` in nats.
    """
    total = concentrations.new_zeros(len(concentrations))
    for s in schema.slices.values():
        a, x = concentrations[:, s], counts[:, s]
        asked = (x.sum(1) > 0).float()
        big_a, n = a.sum(1), x.sum(1)
        log_p = torch.lgamma(n + 1) + torch.lgamma(big_a) - torch.lgamma(n + big_a)
        log_p = log_p + (torch.lgamma(x + a) - torch.lgamma(a) - torch.lgamma(x + 1)).sum(1)
        total = total - asked * log_p
    return total


def pseudo_counts(joint: torch.Tensor, schema: VoteSchema) -> torch.Tensor:
    """Invent the votes behind labels that come as fractions: ``N = round(votes_per_galaxy x asked)``.

    Parameters
    ----------
    joint : torch.Tensor
        ``(N, K)`` joint targets.

    Returns
    -------
    torch.Tensor
        ``(N, K)`` float32: each question's counts sum to its whole number N of pseudo-volunteers; all 0 where N
        is 0.
    """
    conditional = schema.conditional(joint.numpy())
    asked = schema.asked_of_joint(joint.numpy())[:, schema.question_of]
    number = torch.from_numpy(asked * schema.votes_per_galaxy).round()
    counts = torch.from_numpy(conditional).nan_to_num(0.0) * number
    return counts.float()
