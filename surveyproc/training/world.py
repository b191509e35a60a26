"""The processes that train together, as the loop sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch


def _alone(tensor: torch.Tensor) -> None:
    """Nothing to add up."""


@dataclass(frozen=True)
class World:
    """One process among others that train together.

    Attributes
    ----------
    rank, size : int
        Number of this process, and of all.
    add : callable
        Replaces a tensor by its sum over the processes, in place.
    """

    rank: int = 0
    size: int = 1
    add: Callable[[torch.Tensor], None] = _alone

    def any(self, here: bool) -> bool:
        """True on every process when it is on one."""
        if self.size == 1:
            return here
        flag = torch.tensor([float(here)])
        self.add(flag)
        return bool(flag[0] > 0)

    def add_gradients(self, model: torch.nn.Module) -> None:
        """Replace gradients by their sum over the processes, flattened into one message for each dtype."""
        if self.size > 1:
            self._add_together([p.grad for p in model.parameters() if p.grad is not None])

    def average_buffers(self, model: torch.nn.Module) -> None:
        """Replace floating-point buffers (batch statistics) by their mean over the processes."""
        if self.size > 1:
            buffers = [b for b in model.buffers() if b.is_floating_point()]
            self._add_together(buffers)
            for buffer in buffers:
                buffer /= self.size

    def _add_together(self, tensors: Iterable[torch.Tensor]) -> None:
        by_dtype: dict[torch.dtype, list[torch.Tensor]] = {}
        for tensor in tensors:
            by_dtype.setdefault(tensor.dtype, []).append(tensor)
        for group in by_dtype.values():
            flat = torch.cat([t.reshape(-1) for t in group])
            self.add(flat)
            for tensor, part in zip(group, flat.split([t.numel() for t in group])):
                tensor.copy_(part.view(tensor.shape))
