"""Presets: one YAML file says how a survey lays out its tiles."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from surveyproc.errors import InputError, UsageError, did_you_mean

FOLDER = Path(__file__).parent.parent / "presets"
WEIGHT_KINDS = ("ivar", "variance", "rms")


@dataclass(frozen=True)
class Preset:
    """What a preset says; see `surveyproc.ingest.tiles.layout.Layout` for the meaning of each.

    Attributes
    ----------
    title : str
    source : str
        Where this is documented.
    bands : mapping of str to str
        Band to what it is called in file names.
    files : mapping of str to str
        Pattern of ``image`` and of planes in files of their own, relative to the folder of the tiles.
    hdus : mapping of str to (int or str)
        HDU of ``image`` and of planes.
    weight : str
    saturated_bits : tuple of int or str
    zeropoint_keys, saturation_keys, psf_keys : tuple of str
    pixel_scale_arcsec : float or None
    """

    title: str
    source: str = ""
    bands: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    hdus: Mapping[str, int | str] = field(default_factory=dict)
    weight: str = "ivar"
    saturated_bits: tuple[int | str, ...] = ()
    zeropoint_keys: tuple[str, ...] = ()
    saturation_keys: tuple[str, ...] = ("SATURATE",)
    psf_keys: tuple[str, ...] = ()
    pixel_scale_arcsec: float | None = None


@cache
def preset_names() -> list[str]:
    """Names of the shipped presets."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_preset(name: str) -> Preset:
    """Read a shipped preset by name, or a YAML file of the user's.

    Raises
    ------
    UsageError
        When there is none of that name.
    InputError
        When the file is no preset.
    """
    import yaml

    own = name.endswith((".yaml", ".yml"))
    path = Path(name) if own else FOLDER / f"{name}.yaml"
    if not own and name not in preset_names():
        raise UsageError(
            f"unknown preset {name!r}.{did_you_mean(name, preset_names())}",
            where="--preset",
            fix=f"one of {', '.join(preset_names())}, or the path of a YAML file",
        )
    try:
        value = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise InputError("the preset is not there", where=os.fspath(path), fix="check --preset") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        what = str(error).splitlines()[0]
        raise InputError(
            f"the preset cannot be read: {what}", where=os.fspath(path), fix="see a shipped one"
        ) from error
    return _checked(value, os.fspath(path))


def _checked(value: Any, where: str) -> Preset:
    fields = {f.name: f for f in dataclasses.fields(Preset)}
    problems = []
    if not isinstance(value, dict):
        value, problems = {}, ["it is no mapping"]
    problems += [
        f"unknown key {key!r}.{did_you_mean(str(key), fields)}" for key in value if key not in fields
    ]
    if not value.get("title"):
        problems.append("title is missing")
    for key in ("bands", "files", "hdus"):
        if not isinstance(value.get(key, {}), dict):
            problems.append(f"{key} is no mapping")
    for key in ("saturated_bits", "zeropoint_keys", "saturation_keys", "psf_keys"):
        if not isinstance(value.get(key, []), list):
            problems.append(f"{key} is no list")
    scale = value.get("pixel_scale_arcsec")
    if scale is not None and not (isinstance(scale, (int, float)) and scale > 0):
        problems.append(f"pixel_scale_arcsec {scale!r} is no positive number")
    if value.get("weight", "ivar") not in WEIGHT_KINDS:
        problems.append(f"weight is one of {', '.join(WEIGHT_KINDS)}")
    if problems:
        raise InputError(
            "the preset is wrong: " + "; ".join(problems), where=where, fix=f"keys are {', '.join(fields)}"
        )
    known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
    return Preset(**known)
