"""What every node must have in common with the driver: the code, the precision, the bundles."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from surveyproc.errors import InputError, ResourceError, UsageError
from surveyproc.inference.settings import EngineSettings, resolve_device, resolve_precision
from surveyproc.models.bundle import SHIPPED, Bundle, open_bundle
from surveyproc.runs.version import code_version
from surveyproc.stores import is_hub


def software() -> str:
    """Version of all that computes values here."""
    return f"surveyproc {code_version()} with torch {torch.__version__}"


def is_shipped(bundle: Bundle) -> bool:
    """Whether the bundle comes with the package, so that every node has it under its name."""
    return Path(bundle.uri).parent == SHIPPED


def bundle_address(bundle: Bundle) -> str:
    """What `open_bundle` wants to find the same bundle on another node."""
    if is_shipped(bundle):
        return Path(bundle.uri).name
    return bundle.uri if "://" in bundle.uri or is_hub(bundle.uri) else os.path.abspath(bundle.uri)


def bundle_digest(bundle: Bundle) -> str:
    """Digest of model.json, which names the digest of the weights."""
    return hashlib.sha256(json.dumps(bundle.record, sort_keys=True).encode()).hexdigest()


def open_agreed(
    bundles: Sequence[str], digests: Sequence[str], settings: EngineSettings, expected: str
) -> list[Bundle]:
    """Open the bundles here, and refuse this node when it would compute other values than the driver said.

    Parameters
    ----------
    bundles, digests : sequence of str
        `bundle_address` and `bundle_digest` of each, as the driver found them.
    settings : EngineSettings
        With device and precision resolved.
    expected : str
        The driver's `software`; empty accepts any.

    Raises
    ------
    SurveyprocError
    """
    if expected and software() != expected:
        raise UsageError(
            f"this node has {software()}, the driver has {expected}",
            where="the software on the nodes",
            fix="install the same on every node, or let `surveyproc submit` ship the code; say --accept-code "
            "when the difference cannot alter values",
        )
    try:
        resolve_precision(settings.precision, resolve_device(settings.device))
    except ResourceError as error:
        raise ResourceError(
            f"this node cannot compute what the run was begun with: {error.what}",
            where=error.where,
            fix="use nodes of one kind, or begin a new run with engine.precision=fp32",
        ) from error
    opened = [open_bundle(address) for address in bundles]
    for bundle, digest in zip(opened, digests, strict=True):
        if bundle_digest(bundle) != digest:
            raise InputError(
                f"the bundle {bundle.name!r} on this node is not the driver's",
                where=bundle.uri,
                fix="give the bundle as a URI that every node can read, or ship it with `surveyproc submit`",
            )
    return opened
