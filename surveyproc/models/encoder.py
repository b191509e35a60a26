"""An encoder alone, as others published it: embeddings, and no head."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from surveyproc.cutouts import InputContract
from surveyproc.errors import InputError, did_you_mean
from surveyproc.models.encoders import Pretrained, build_encoder, embedding_size, outline, require_fit

ZOOBOT_SIZE = 224
ZOOBOT_ZOOM = 1.2
GFLOP_PER_SECOND = 100.0


class Encoder(nn.Module):
    """A timm model without classifier.

    Attributes
    ----------
    product : None
        There is no head: a run writes the embeddings only.
    embedding_size : int
        Length D of the features.
    dropout : float
        0: there is no head to repeat.
    """

    product = None
    dropout = 0.0

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.embedding_size = embedding_size(encoder)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, size, size)`` normalised pixels to ``(N, D)`` features."""
        return self.encoder(images)


def build(encoder: str, encoder_arguments: dict[str, Any] | None = None, in_chans: int = 3) -> Encoder:
    """Build the architecture with fresh weights; nothing is downloaded.

    Parameters
    ----------
    encoder : str
        timm model name.
    encoder_arguments : dict, optional
        More arguments of `timm.create_model`.
    in_chans : int
        Channels of the input.
    """
    return Encoder(build_encoder(encoder, in_chans, encoder_arguments))


def encoder_record(name: str, found: Pretrained) -> dict[str, Any]:
    """Describe published weights as the record of a bundle.

    Parameters
    ----------
    name : str
        Of the repository or folder.
    found : Pretrained
        With the config.json of the hub's layout.

    Returns
    -------
    dict
        The model.json that the weights would have.

    Raises
    ------
    InputError
        When the weights do not fit what config.json says, or it does not say what the channels are.
    """
    module = outline(found.name, found.in_chans, found.arguments)
    require_fit(found.state, module, found.origin)
    contract, note = published_contract(name, found)
    return {
        "name": name,
        "architecture": "encoder",
        "arguments": {
            "encoder": found.name,
            "encoder_arguments": found.arguments,
            "in_chans": found.in_chans,
        },
        "input": contract.to_dict(),
        "outputs": {"embedding_size": embedding_size(module)},
        "inference": {"views": 1, "draws": 1},
        "training": {"weights": found.record()},
        "cost": _estimated_cost(module, contract, found.origin),
        "licence": found.config.get("pretrained_cfg", {}).get("license", "not stated"),
        "note": note,
        "weights_sha256": found.sha256,
    }


def published_contract(name: str, found: Pretrained) -> tuple[InputContract, str]:
    """Say which pixels a published encoder wants.

    Zoobot's encoders want plain [0, 1] pixels, 224 px of the centre at a zoom of 1.2 (the central 83 % of the side):
    the ImageNet mean and std in their config.json are left over from timm and were never used. Others want the
    ``mean``, ``std``, ``input_size`` and ``crop_pct`` of their ``pretrained_cfg``. One channel is the mean of R, G
    and B. Fields under ``{"surveyproc": {"input": {...}}}`` in config.json replace all of these.

    Returns
    -------
    contract : InputContract
    note : str
        What was taken from where.
    """
    cfg = found.config.get("pretrained_cfg") or {}
    own = (found.config.get("surveyproc") or {}).get("input") or {}
    grey = found.in_chans == 1
    value: dict[str, Any] = {"bands": ("R", "G", "B"), "greyscale": grey, "stretch": "display"}
    if "zoobot" in f"{name} {cfg.get('hf_hub_id', '')}".lower():
        value |= {"size": ZOOBOT_SIZE, "crop": 1 / ZOOBOT_ZOOM, "mean": 0.0, "std": 1.0}
        note = (
            "a Zoobot encoder: plain [0, 1] pixels, 1.2x zoom; mean and std of config.json are not its input"
        )
    else:
        value |= {
            "size": int((cfg.get("input_size") or (3, ZOOBOT_SIZE, ZOOBOT_SIZE))[-1]),
            "crop": float(cfg.get("crop_pct") or 1.0),
            "mean": _per_channel(cfg.get("mean", 0.0), found.in_chans),
            "std": _per_channel(cfg.get("std", 1.0), found.in_chans),
        }
        note = f"input as config.json says: mean {value['mean']}, std {value['std']}, crop {value['crop']}"
    known = [*InputContract.__dataclass_fields__]
    if wrong := [key for key in own if key not in known]:
        raise InputError(
            f"config.json: surveyproc.input has no field {wrong[0]!r}.{did_you_mean(wrong[0], known)}",
            where=found.origin,
            fix=f"fields: {', '.join(known)}",
        )
    contract = InputContract.from_dict(value | own)
    if contract.channels != found.in_chans:
        raise InputError(
            f"the encoder takes {found.in_chans} channels, and config.json does not say which bands they are",
            where=found.origin,
            fix='add them to config.json: "surveyproc": {"input": {"bands": ["u", "g", ...], "stretch": "none", '
            '"greyscale": false, "mean": 0, "std": 1}}',
        )
    return contract, note + (f"; {', '.join(sorted(own))} by its surveyproc.input" if own else "")


def _per_channel(value: Any, channels: int) -> float | list[float]:
    if isinstance(value, (int, float)):
        return float(value)
    return list(value) if len(value) == channels else sum(value) / len(value)


def _estimated_cost(module: nn.Module, contract: InputContract, where: str) -> dict[str, Any]:
    images = torch.empty(1, contract.channels, contract.size, contract.size, device="meta")
    try:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            module.eval()(images)
    except (AssertionError, RuntimeError) as error:
        raise InputError(
            f"the encoder does not take images of {contract.size} px: {str(error).splitlines()[0]}",
            where=f"{where}/config.json",
            fix='state the size it was made for in config.json: "surveyproc": {"input": {"size": 224}}',
        ) from error
    gflop = counter.get_total_flops() / 1e9
    return {
        "ms_per_cutout": round(gflop / GFLOP_PER_SECOND * 1e3, 3),
        "views": 1,
        "machine": f"an estimate: {gflop:.2f} GFLOP at {GFLOP_PER_SECOND:g} GFLOP/s for one core",
    }
