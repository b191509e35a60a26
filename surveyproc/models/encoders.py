"""Encoders of any timm name, and other people's weights in them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, cast

import timm
import torch
from torch import nn

from surveyproc.errors import InputError, UsageError, did_you_mean
from surveyproc.models.first_layer import adapt_first_layer, channels_of, first_layers
from surveyproc.models.weights import differences, read_weights

FIRST_LAYERS = ("adapt", "fresh")
MOST_NAMED = 3


@dataclass(frozen=True)
class Pretrained:
    """Weights of an encoder.

    Attributes
    ----------
    name : str
        timm name.
    arguments : dict
        More arguments of `timm.create_model`.
    state : dict of str to torch.Tensor
        Weights under timm's names, in float32, without a classifier.
    sha256 : str
        Digest of the file they come from.
    in_chans : int
        Channels of the first layer in the file.
    origin : str
        Absolute path, URL, or ``hf_hub:ORG/NAME@COMMIT``.
    config : dict
        The whole config.json, or the model.json of a bundle; empty for a single file.
    """

    name: str
    arguments: dict[str, Any]
    state: dict[str, torch.Tensor]
    sha256: str
    in_chans: int
    origin: str
    config: dict[str, Any]

    def record(self) -> dict[str, Any]:
        """What a bundle trained from these weights says of them."""
        return {
            "origin": self.origin,
            "sha256": self.sha256,
            "encoder": self.name,
            "in_chans": self.in_chans,
        }


def build_encoder(name: str, in_chans: int = 3, arguments: dict[str, Any] | None = None) -> nn.Module:
    """Build a timm model without its classifier, with fresh weights; nothing is downloaded.

    Parameters
    ----------
    name : str
        timm model name.
    in_chans : int
        Channels of the input.
    arguments : dict, optional
        More arguments of `timm.create_model`, e.g. ``{"channels": [48, 96, 192, 384]}`` for a narrow ResNet.

    Raises
    ------
    UsageError
        For a name timm does not know, or arguments that model does not take.
    """
    if not timm.is_model(name):
        raise UsageError(
            f"timm has no model {name!r}.{did_you_mean(name, timm.list_models())}",
            where="encoder",
            fix='`python -c "import timm; print(*timm.list_models())"` lists them; weights are named apart '
            "(train.weights)",
        )
    try:
        return timm.create_model(
            name, pretrained=False, num_classes=0, in_chans=in_chans, **(arguments or {})
        )
    except (TypeError, ValueError, AssertionError, AttributeError, LookupError, RuntimeError) as error:
        raise UsageError(
            f"timm cannot build {name} with {in_chans} channels and {arguments or {}}: {error}",
            where="encoder_arguments",
            fix="correct or leave out the argument",
        ) from error


def embedding_size(encoder: nn.Module) -> int:
    """Length of the features of a timm model without classifier."""
    # MobileNet-like encoders pool before a last wide layer; timm names its width apart.
    return int(getattr(encoder, "head_hidden_size", None) or encoder.num_features)  # type: ignore[arg-type]


def pretrained(source: str, name: str = "", arguments: dict[str, Any] | None = None) -> Pretrained:
    """Read the weights of an encoder.

    Parameters
    ----------
    source : str
        See `surveyproc.models.weights.read_weights`.
    name, arguments : str, dict, optional
        timm name and arguments of weights in a single file, which does not say them.

    Raises
    ------
    InputError
        When the source has no usable weights, or says another timm name.
    ResourceError
        When the hub is needed and cannot be reached.
    """
    found = read_weights(source)
    described = found.config
    if "weights_sha256" in described:
        prefix, told = _encoder_of_bundle(described["arguments"], name)
        architecture, own = told.get("encoder") or "", dict(told.get("encoder_arguments") or {})
        state = {k.removeprefix(prefix): v for k, v in found.state.items() if k.startswith(prefix)}
    else:
        architecture, state = described.get("architecture", ""), found.state
        own = {
            k: v for k, v in described.get("model_args", {}).items() if k not in ("num_classes", "in_chans")
        }
    if not architecture and not name:
        raise InputError(
            "the file does not say which encoder its weights belong to",
            where=found.origin,
            fix="give a folder with config.json beside the weights (timm.models.save_for_hf writes it)",
        )
    if architecture and name and timm_name(architecture) != timm_name(name):
        raise InputError(
            f"the weights are of {architecture}, the encoder is {name}",
            where=found.origin,
            fix=f"use encoder={architecture}, or weights of {name}",
        )
    chosen = architecture or name
    if not timm.is_model(chosen):
        raise InputError(
            f"timm {timm.__version__} has no model {chosen!r}.{did_you_mean(chosen, timm.list_models())}",
            where=found.origin,
            fix="convert the weights to a timm model",
        )
    own = own if architecture else dict(arguments or {})
    own = {k: v for k, v in own.items() if k not in ("num_classes", "in_chans")}
    try:
        rgb = outline(chosen, 3, own)
    except UsageError as error:
        raise InputError(error.what, where=found.origin, fix="correct model_args in config.json") from error
    state = {k: v.float() if v.is_floating_point() else v for k, v in under_timm_names(state, rgb).items()}
    return Pretrained(chosen, own, state, found.sha256, channels_of(state, rgb), found.origin, described)


def _encoder_of_bundle(arguments: dict[str, Any], name: str) -> tuple[str, dict[str, Any]]:
    """Prefix of an encoder's tensors in a bundle, and its arguments; of an ensemble the member of that name.

    Without a member of that name, or without a name, it is the first one that is a timm model.
    """
    if "members" not in arguments:
        return "encoder.", arguments
    members = {
        f"encoder.members.{number}.encoder.": member["arguments"]
        for number, member in enumerate(arguments["members"])
        if member["arguments"].get("encoder")
    }
    wanted = [
        found for found in members.items() if name and timm_name(found[1]["encoder"]) == timm_name(name)
    ]
    return next(iter(wanted or members.items()), ("encoder.", {}))


def timm_name(name: str) -> str:
    """A timm name without the tag of its weights."""
    return name.partition(".")[0]


def outline(name: str, in_chans: int, arguments: dict[str, Any]) -> nn.Module:
    """Build an encoder whose tensors have shapes and no values: in a tenth of a second, whatever its size."""
    with torch.device("meta"):
        return build_encoder(name, in_chans, arguments)


def load_pretrained_into(module: nn.Module, source: str, first_layer: str = "adapt") -> dict[str, Any]:
    """Load other people's weights into the encoder of a model.

    Parameters
    ----------
    module : torch.nn.Module
        A timm encoder, or a model that has one inside.
    source : str
        See `surveyproc.models.weights.read_weights`. A classifier in the file is left out.
    first_layer : str
        For another number of channels than in the file: ``adapt`` (`adapt_first_layer`) or ``fresh``.

    Returns
    -------
    dict
        ``origin``, ``sha256``, ``encoder``, ``in_chans`` and ``first_layer`` (``as in the file``, ``adapted``,
        ``fresh``), for ``training.weights`` of the bundle.

    Raises
    ------
    InputError
        When a tensor is missing, unexpected or of another shape: all of them are counted, the first named.
    """
    if first_layer not in FIRST_LAYERS:
        raise UsageError(
            f"first_layer={first_layer}: there is no such way.{did_you_mean(first_layer, FIRST_LAYERS)}",
            where="first_layer",
            fix=f"use {' or '.join(FIRST_LAYERS)}",
        )
    encoder: Any = next((m for m in module.modules() if hasattr(m, "pretrained_cfg")), None)
    if encoder is None:
        raise UsageError(
            "the model has no timm encoder for weights", where=source, fix="leave the weights out"
        )
    name = encoder.pretrained_cfg["architecture"]
    found = pretrained(source, name, getattr(encoder, "_model_args", {}))
    state, done = found.state, "as in the file"
    if first_layer == "fresh" and not first_layers(encoder):
        raise UsageError(
            f"timm does not say which layer of this {name} comes first",
            where="first_layer=fresh",
            fix="use first_layer=adapt and as many bands as the weights have",
        )
    if first_layer == "fresh":
        state = dict(state) | {k: encoder.state_dict()[k] for k in first_layers(encoder)}
        done = "fresh"
    elif found.in_chans != encoder.in_chans:
        state = adapt_first_layer(state, encoder, encoder.in_chans)
        done = "adapted"
    state = under_timm_names(state, encoder)
    require_fit(state, encoder, found.origin)
    encoder.load_state_dict(state)
    return found.record() | {"first_layer": done}


def under_timm_names(state: dict[str, torch.Tensor], encoder: nn.Module) -> dict[str, torch.Tensor]:
    """Leave out the classifier, and bring old names and sizes to those of timm's present model."""
    named: Any = cast(Any, encoder).pretrained_cfg.get("classifier") or ()
    classifier = tuple(f"{layer}." for layer in ((named,) if isinstance(named, str) else named))
    expected = encoder.state_dict()
    rename = getattr(sys.modules[type(encoder).__module__], "checkpoint_filter_fn", None)
    plain = {k: v for k, v in state.items() if k in expected or not k.startswith(classifier)}
    if rename is None or not differences(plain, expected):
        return plain
    try:
        renamed = rename(dict(state), encoder)
    except Exception:  # timm's filters raise nearly anything on weights of another model: the names will tell
        return plain
    return {k: v for k, v in renamed.items() if k in expected or not k.startswith(classifier)}


def require_fit(state: dict[str, torch.Tensor], encoder: nn.Module, origin: str) -> None:
    """Refuse weights that are not one for one those of the encoder.

    Raises
    ------
    InputError
    """
    if wrong := differences(state, encoder.state_dict()):
        more = f" (and {len(wrong) - MOST_NAMED} more)" if len(wrong) > MOST_NAMED else ""
        raise InputError(
            f"the weights do not fit the encoder: {'; '.join(wrong[:MOST_NAMED])}{more}",
            where=origin,
            fix="build the encoder with the timm name and arguments the weights were made with",
        )
