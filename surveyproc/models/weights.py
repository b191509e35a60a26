"""Files of weights, ours and other people's: folders in the hub's layout, bundles, single files, pinned digests."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from surveyproc.errors import InputError
from surveyproc.models.hub import WEIGHTS, hub_folder
from surveyproc.stores import is_hub, read_file

SHIPPED = Path(__file__).resolve().parent.parent / "bundles"
FILES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".pkl", ".npz", ".h5")
PIN = re.compile(r"(?P<source>.+)@sha256:(?P<digest>[0-9a-f]{64})")


@dataclass(frozen=True)
class WeightFiles:
    """What lies at a source.

    Attributes
    ----------
    config : dict
        ``config.json`` of the hub's layout, or ``model.json`` of a bundle; empty for a single file.
    state : dict of str to torch.Tensor
        As in the file.
    sha256 : str
        Digest of the file of weights.
    origin : str
        Absolute path, URL, or ``hf_hub:ORG/NAME@COMMIT``.
    """

    config: dict[str, Any]
    state: dict[str, torch.Tensor]
    sha256: str
    origin: str


def read_weights(source: str) -> WeightFiles:
    """Read the weights at a source, and check their digest when the source names it.

    Parameters
    ----------
    source : str
        A folder or URL with ``config.json`` and ``model.safetensors`` (else ``pytorch_model.bin``), a bundle, a
        single ``.safetensors`` file or plain state dict (``.bin``, ``.pth``, ``.pt``), or
        ``hf_hub:ORG/NAME[@REVISION]``; each may end in ``@sha256:DIGEST`` of the file of weights.

    Raises
    ------
    InputError
        When something is missing, another file than the digest says, or pickled.
    ResourceError
        When the hub is needed and cannot be reached.
    """
    uri, pinned = split_pin(source)
    if (SHIPPED / uri / "model.json").exists():
        uri = str(SHIPPED / uri)
    if is_hub(uri):
        folder, origin = hub_folder(uri)
        config, file, data = _read_folder(folder)
    elif uri.endswith(FILES):
        config, file, data, origin = {}, uri, _read_file(uri), _absolute(uri)
    else:
        config, file, data = _read_folder(uri)
        origin = _absolute(uri)
    digest = hashlib.sha256(data).hexdigest()
    check_pin(digest, pinned or config.get("weights_sha256", ""), file)
    return WeightFiles(config, load_state(data, file), digest, origin)


def split_pin(source: str) -> tuple[str, str]:
    """Split ``SOURCE@sha256:DIGEST`` into the source and the digest, empty when there is none."""
    found = PIN.fullmatch(source)
    uri, digest = (found["source"], found["digest"]) if found else (source, "")
    if "@sha256:" in uri:
        raise InputError("a SHA-256 digest has 64 hexadecimal digits, in lower case", where=source)
    return uri if uri.endswith("://") else uri.rstrip("/"), digest


def check_pin(digest: str, pinned: str, where: str) -> None:
    """Refuse a file whose SHA-256 is not the pinned one; an empty pin accepts any."""
    if pinned and digest != pinned:
        raise InputError(
            f"the weights are not the pinned ones: sha256 {digest}, expected {pinned}",
            where=where,
            fix="get the file again from where the digest comes from, or correct the digest",
        )


def load_state(data: bytes, file: str) -> dict[str, torch.Tensor]:
    """Read a state dict from the bytes of a file; nothing in the file can run.

    Raises
    ------
    InputError
        For anything but safetensors, or a plain dict of tensors.
    """
    if file.endswith(".safetensors"):
        try:
            return load_tensors(data)
        except SafetensorError as error:
            raise InputError(
                f"the weights are not a safetensors file: {error}", where=file, fix="copy the file again"
            ) from error
    if not file.endswith((".bin", ".pth", ".pt")):
        raise _pickled(file, f"{Path(file).suffix} files can run code when they are opened")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about TorchScript, which is refused below
            found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch raises nearly anything on bytes that are no plain state dict
        raise _pickled(file, "the file holds more than tensors, or is damaged") from error
    if not isinstance(found, dict) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise _pickled(file, "the file holds a training checkpoint, not a plain state dict")
    return dict(found)


def differences(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> list[str]:
    """Describe each tensor that is missing, unexpected or of another shape."""
    return [
        *(f"missing tensor {k}" for k in sorted(expected.keys() - found.keys())),
        *(f"unexpected tensor {k}" for k in sorted(found.keys() - expected.keys())),
        *(
            f"tensor {k} is {tuple(found[k].shape)}, the architecture has {tuple(expected[k].shape)}"
            for k in sorted(found.keys() & expected.keys())
            if found[k].shape != expected[k].shape
        ),
    ]


def _read_folder(uri: str) -> tuple[dict[str, Any], str, bytes]:
    name, text = _read_description(uri)
    try:
        config = json.loads(text)
        if not isinstance(config.get("architecture"), str):
            raise ValueError("it has no architecture")
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"{name} does not describe a model: {error}",
            where=f"{uri}/{name}",
            fix="timm.models.save_for_hf(model, FOLDER) writes a folder that can be read",
        ) from error
    for name in WEIGHTS:
        try:
            return config, f"{uri}/{name}", read_file(f"{uri}/{name}")
        except FileNotFoundError:
            continue
    raise InputError(
        f"there are no weights beside the description of the model: neither {' nor '.join(WEIGHTS)}",
        where=uri,
        fix="copy the whole folder",
    )


def _read_description(uri: str) -> tuple[str, bytes]:
    for name in ("model.json", "config.json"):
        try:
            return name, read_file(f"{uri}/{name}")
        except FileNotFoundError:
            continue
    raise InputError(
        "there are no weights here: neither config.json nor a bundle's model.json",
        where=uri,
        fix=f"give a folder with config.json and {WEIGHTS[0]} or {WEIGHTS[1]}, a bundle, a .safetensors file, "
        "or hf_hub:ORG/NAME",
    )


def _read_file(uri: str) -> bytes:
    try:
        return read_file(uri)
    except FileNotFoundError as error:
        raise InputError("there is no such file of weights", where=uri, fix="check the path") from error


def _pickled(file: str, why: str) -> InputError:
    plain = Path(file).name
    return InputError(
        f"pickled weights are never loaded: {why}",
        where=file,
        fix="if you trust the file, convert it once, keeping the keys of the encoder:\n"
        "    import torch; from safetensors.torch import save_file\n"
        f'    state = torch.load("{plain}", map_location="cpu", weights_only=False)["state_dict"]\n'
        '    save_file({k.removeprefix("encoder."): v.contiguous() for k, v in state.items()'
        ' if k.startswith("encoder.")}, "model.safetensors")',
    )


def _absolute(uri: str) -> str:
    return uri if "://" in uri else os.path.abspath(uri)
