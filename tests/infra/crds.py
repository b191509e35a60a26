"""KubeRay's own schemas, made strict: a field the CRD does not know is refused, as the API server does."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jsonschema
import yaml

KINDS = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}


@cache
def validator(folder: Path, kind: str, version: str = "v1") -> jsonschema.Draft7Validator:
    """Validator of one kind and version from the CRD in ``folder``."""
    definition = yaml.load((folder / KINDS[kind]).read_text(), Loader=yaml.CSafeLoader)
    versions = {v["name"]: v["schema"]["openAPIV3Schema"] for v in definition["spec"]["versions"]}
    schema = strict(versions[version])
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    schema["properties"]["apiVersion"] = {"const": f"ray.io/{version}"}
    schema["properties"]["kind"] = {"const": kind}
    return jsonschema.Draft7Validator(schema)


def strict(schema: dict) -> dict:
    """Copy a structural schema; where it names properties, others are refused.

    ``x-kubernetes-preserve-unknown-fields`` keeps a level open, ``x-kubernetes-int-or-string`` becomes two types.
    """
    copy = {
        key: value
        for key, value in schema.items()
        if key not in ("properties", "items", "additionalProperties")
    }
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]} | {k: copy[k] for k in ("pattern",) if k in copy}
    if "properties" in schema:
        copy["properties"] = {name: strict(part) for name, part in schema["properties"].items()}
        copy["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if isinstance(schema.get("additionalProperties"), dict):
        copy["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        copy["items"] = strict(schema["items"])
    return copy


def complaints(folder: Path, manifest: dict) -> list[str]:
    """What the schema of the manifest's kind has against it: ``path: message`` each."""
    errors = validator(folder, manifest["kind"]).iter_errors(manifest)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]
