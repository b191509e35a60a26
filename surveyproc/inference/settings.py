"""How the engine computes, and what the hardware can do."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from surveyproc.errors import ResourceError


@dataclass(frozen=True)
class EngineSettings:
    """How the engine computes; every field can change values and is in the run's fingerprint.

    Attributes
    ----------
    batch_size : int
        Rows of the one shape every batch is padded to.
    device : str
        ``cpu`` or ``cuda``.
    precision : str
        ``bf16`` or ``fp32``, of the encoder; heads and posteriors are always float32.
    threads : int
        Torch threads of one engine on a CPU.
    views, draws : int, optional
        Symmetries of the square that are averaged, and dropout draws of the head; None takes the bundle's.
    """

    batch_size: int = 64
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    views: int | None = None
    draws: int | None = None


def resolve_device(device: str) -> str:
    """Resolve ``auto`` and refuse a device that is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ResourceError(
            "there is no CUDA device here", where="engine.device", fix="use engine.device=cpu"
        )
    return device


def resolve_precision(precision: str, device: str) -> str:
    """Resolve ``auto`` to bf16 where the hardware computes it, and refuse it where it does not."""
    able = torch.cuda.is_bf16_supported() if device != "cpu" else _cpu_has_bf16()
    if precision == "auto":
        return "bf16" if able else "fp32"
    if precision == "bf16" and not able:
        raise ResourceError(
            f"this {device} does not compute bf16", where="engine.precision", fix="use engine.precision=fp32"
        )
    return precision


def _cpu_has_bf16() -> bool:
    supported = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bool(supported) and torch.cpu._is_avx512_bf16_supported()
