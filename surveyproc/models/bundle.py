"""Bundles: a model on disk as ``model.json`` and ``model.safetensors``."""

from __future__ import annotations

import hashlib
import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from surveyproc.cutouts import InputContract
from surveyproc.errors import InputError, did_you_mean
from surveyproc.models.weights import FILES, check_pin, differences, split_pin
from surveyproc.models.weights import SHIPPED as SHIPPED
from surveyproc.stores import exists, is_hub, read_file

FORMAT = 1
DOMAIN_PREFIX = "domain."
HEAD_ARGUMENTS = ("answers", "dropout", "head")


class Model(Protocol):
    """What the engine asks of an architecture: ``surveyproc/models/<architecture>.py:build``.

    ``product`` names what the head's output means (``morphology``), and is None where there is no head;
    ``embedding_size`` is D, ``dropout`` the rate that the engine applies to the features before the head,
    keyed by object id.
    """

    product: str | None
    embedding_size: int
    dropout: float

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, size, size)`` normalised pixels to ``(N, D)`` features."""

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Map ``(N, D)`` features to ``(N, K)`` outputs (concentrations for ``morphology``).

        With M members ``(N, M, K)``: each is a component of its own.
        """


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes
    ----------
    name : str
        Name in tables, logs and provenance.
    record : dict
        The whole model.json.
    tensors : dict of str to torch.Tensor
        Weights (half precision on disk), the ``domain.*`` reference beside them.
    sha256 : str
        Digest of the file of weights, checked on opening.
    encoder_hash : str
        Digest of the encoder alone: bundles with the same one share its features.
    """

    name: str
    uri: str
    record: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    sha256: str
    encoder_hash: str

    @property
    def contract(self) -> InputContract:
        """The pixels the bundle wants."""
        return InputContract.from_dict(self.record["input"])

    def build(self) -> Model:
        """Build the module and load the weights into it, in float32 and evaluation mode.

        Raises
        ------
        InputError
            When a tensor is missing, unexpected or of another shape.
        """
        module = build_architecture(self.record["architecture"], self.record["arguments"])
        weights = {k: v.float() for k, v in self.tensors.items() if not k.startswith(DOMAIN_PREFIX)}
        if wrong := differences(weights, module.state_dict()):
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise InputError(
                f"bundle {self.name!r} does not fit its architecture: {wrong[0]}{more}",
                where=self.uri,
                fix="write the bundle again with the code it was trained with",
            )
        module.load_state_dict(weights)
        return cast(Model, module.eval())


def build_architecture(architecture: str, arguments: dict[str, Any]) -> torch.nn.Module:
    """Build ``surveyproc.models.<architecture>`` with its arguments and fresh weights."""
    folder = Path(__file__).parent
    known = sorted(p.stem for p in folder.glob("*.py") if "\ndef build(" in p.read_text())
    if architecture not in known:
        raise InputError(
            f"unknown architecture {architecture!r}.{did_you_mean(architecture, known)}",
            fix=f"known: {', '.join(known)}",
        )
    return importlib.import_module(f"surveyproc.models.{architecture}").build(**arguments)


def shipped_bundles() -> list[str]:
    """Names of the bundles that come with the package or were sent along with a job."""
    return sorted(p.parent.name for name in ("model", "config") for p in SHIPPED.glob(f"*/{name}.json"))


def open_bundle(name_or_uri: str) -> Bundle:
    """Open a bundle and check its digest.

    Parameters
    ----------
    name_or_uri : str
        Name of a shipped bundle, or path or fsspec URL of one; or somebody's encoder: a folder in the hub's
        layout (config.json and weights), or ``hf_hub:ORG/NAME[@REVISION]``. Each may end in ``@sha256:DIGEST``.

    Raises
    ------
    InputError
        When there is no such bundle, or its weights are not those its model.json or the digest names.
    ResourceError
        When the hub is needed and cannot be reached.
    """
    known = shipped_bundles()
    source, pinned = split_pin(name_or_uri)
    uri = str(SHIPPED / source) if source in known else source
    if (
        is_hub(uri)
        or uri.endswith(FILES)
        or (not exists(f"{uri}/model.json") and exists(f"{uri}/config.json"))
    ):
        return _open_encoder(uri, pinned)
    try:
        record = json.loads(read_file(f"{uri}/model.json"))
    except FileNotFoundError as error:
        raise InputError(
            f"there is no bundle {source!r}.{did_you_mean(source, known)}",
            where=f"{uri}/model.json",
            fix="give a folder with model.json and model.safetensors, an encoder (a folder with config.json and "
            f"weights, or hf_hub:ORG/NAME), or one of: {', '.join(known)}",
        ) from error
    except ValueError as error:
        raise InputError(f"model.json cannot be read: {error}", where=f"{uri}/model.json") from error
    try:
        data = read_file(f"{uri}/model.safetensors")
    except FileNotFoundError as error:
        raise InputError(
            "the bundle has no weights", where=f"{uri}/model.safetensors", fix="copy the whole bundle folder"
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    check_pin(digest, pinned, f"{uri}/model.safetensors")
    if digest != record.get("weights_sha256"):
        raise InputError(
            f"the weights are not those model.json names: sha256 {digest[:12]}, "
            f"expected {str(record.get('weights_sha256'))[:12]}",
            where=f"{uri}/model.safetensors",
            fix="copy the bundle again; a file was changed or cut short",
        )
    missing = [k for k in ("name", "architecture", "arguments", "input", "outputs") if k not in record]
    if missing:
        raise InputError(f"model.json lacks {', '.join(missing)}", where=f"{uri}/model.json")
    try:
        tensors = load_tensors(data)
    except SafetensorError as error:
        raise InputError(
            f"the weights are not a safetensors file: {error}",
            where=f"{uri}/model.safetensors",
            fix="convert them with safetensors.torch.save_file; pickled weights are never loaded",
        ) from error
    return Bundle(record["name"], uri, record, tensors, digest, _encoder_hash(record, tensors))


def _open_encoder(uri: str, pinned: str) -> Bundle:
    """Open published weights of an encoder as a bundle without a head."""
    from surveyproc.models.encoder import encoder_record  # loads timm, for seconds
    from surveyproc.models.encoders import pretrained

    found = pretrained(f"{uri}@sha256:{pinned}" if pinned else uri)
    # The commit is in the origin: other nodes open the same one, whatever a branch has become.
    address = found.origin if is_hub(uri) else uri
    name = (found.origin.rpartition("@")[0] if is_hub(uri) else found.origin).rpartition("/")[2]
    record = encoder_record(name, found)
    tensors = {f"encoder.{key}": tensor for key, tensor in found.state.items()}
    return Bundle(name, address, record, tensors, found.sha256, _encoder_hash(record, tensors))


def write_bundle(
    folder: str | Path, record: dict[str, Any], tensors: dict[str, torch.Tensor], card: str = ""
) -> Bundle:
    """Write a bundle: weights in half precision, model.json with their digest, README.md as model card.

    Parameters
    ----------
    folder : path
        Created when absent.
    record : dict
        model.json without ``format`` and ``weights_sha256``: name, architecture, arguments, input
        (`InputContract.to_dict`), outputs (``vote_schema``, ...), inference (``views``, ``draws``),
        training, metrics, cost (``ms_per_cutout``), licence, citation.
    tensors : dict
        ``state_dict`` of the architecture plus ``domain.*``.
    card : str
        The model card, in Markdown.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    half = {k: v.detach().cpu().half().contiguous() for k, v in tensors.items()}
    data = save_tensors(half)
    record = {"format": FORMAT, **record, "weights_sha256": hashlib.sha256(data).hexdigest()}
    (folder / "model.safetensors").write_bytes(data)
    (folder / "model.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    if card:
        (folder / "README.md").write_text(card)
    return open_bundle(str(folder))


def _encoder_hash(record: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    arguments = {k: v for k, v in record["arguments"].items() if k not in HEAD_ARGUMENTS}
    digest = hashlib.sha256(json.dumps([record["architecture"], arguments], sort_keys=True).encode())
    for key in sorted(k for k in tensors if k.startswith("encoder.")):
        digest.update(key.encode() + str(tuple(tensors[key].shape)).encode())
        digest.update(tensors[key].numpy().tobytes())
    return digest.hexdigest()
