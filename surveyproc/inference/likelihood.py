"""How probable the volunteers' votes are under what the model says."""

from __future__ import annotations

import numpy as np
import torch

from surveyproc.votes import VoteSchema


def vote_log_likelihood(components: np.ndarray, counts: np.ndarray, schema: VoteSchema) -> np.ndarray:
    r"""Log likelihood of vote counts under an equal-weight mixture of Dirichlet-multinomials.

    For each question with votes x (:math:`N=\sum x`) and a component's concentrations a (:math:`A=\sum a`):

    .. math:: \log P = \log\frac{\Gamma(N+1)\Gamma(A)}{\Gamma(N+A)}
              + \sum_k \log\frac{\Gamma(x_k+a_k)}{\Gamma(a_k)\Gamma(x_k+1)}

    (Walmsley et al. 2022, MNRAS 509, 3966, section 4.2).

    Parameters
    ----------
    components : numpy.ndarray
        ``(M, N, K)`` concentrations.
    counts : numpy.ndarray
        ``(N, K)`` votes.

    Returns
    -------
    numpy.ndarray
        ``(N, Q)`` in nats; 0 where nobody voted.
    """
    alpha, votes = torch.from_numpy(components).double(), torch.from_numpy(counts).double()
    found = []
    for s in schema.slices.values():
        a, x = alpha[..., s], votes[:, s]
        total, number = a.sum(-1), x.sum(-1)
        log_p = torch.lgamma(number + 1) + torch.lgamma(total) - torch.lgamma(number + total)
        log_p = log_p + (torch.lgamma(x + a) - torch.lgamma(a) - torch.lgamma(x + 1)).sum(-1)
        found.append(log_p.logsumexp(0) - np.log(len(alpha)))
    return torch.stack(found, dim=1).numpy()
