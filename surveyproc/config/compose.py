"""Compose ``conf/`` with Hydra's compose API; mistakes are collected and answered together."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from surveyproc.errors import UsageError, did_you_mean

_MISTAKES = (HydraException, ConfigCompositionException, OmegaConfBaseException)


def config_folder() -> Path:
    """Folder of the YAML groups: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parent / "conf"


def compose_config(name: str, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """Compose a config with overrides.

    Parameters
    ----------
    name : str
        Config in ``conf/``, such as ``run``.
    overrides : sequence of str
        ``group.key=value`` or ``group=option``.

    Returns
    -------
    config : dict
        The composed config, without the overrides that are wrong.
    problems : list of str
        One line for each override that is wrong, for `refuse` together with what validation finds.
    """
    with initialize_config_dir(config_dir=str(config_folder()), version_base="1.3"):
        base = _base(name, str(config_folder()))
        given, problems, whole = [], [], {}
        for text in overrides:
            problem = _problem(text, base)
            if problem:
                problems.append(problem)
                continue
            override: Override = OverridesParser.create().parse_overrides([text])[0]
            if isinstance(override.value(), dict):
                whole[override.key_or_group] = override.value()
            else:
                given.append(text)
        config, found = _composed(name, str(config_folder()), tuple(given)) if given else (base, [])
    config = copy.deepcopy(config)
    problems += found
    for key, value in whole.items():
        _replace_dictionary(config, key, value)
    return dict(config), problems


@functools.cache
def _base(name: str, folder: str) -> Any:
    """The config without overrides; composing takes Hydra some tenths of a second."""
    return OmegaConf.to_container(compose(name), resolve=True)


@functools.lru_cache(64)
def _composed(name: str, folder: str, overrides: tuple[str, ...]) -> tuple[Any, list[str]]:
    """Compose with overrides; when that fails, without those that fail by themselves, and say which these are."""
    try:
        return OmegaConf.to_container(compose(name, list(overrides)), resolve=True), []
    except _MISTAKES:
        good, problems = [], []
        for text in overrides:
            try:
                compose(name, [text])
                good.append(text)
            except _MISTAKES as error:
                problems.append(f"{text}: {str(error.__cause__ or error).splitlines()[0]}")
        return OmegaConf.to_container(compose(name, good), resolve=True), problems


def expand_sweep(words: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """Cross the choices of ``key=a,b`` overrides, the last one varying fastest.

    Returns
    -------
    members : list of list of str
        One list of overrides for each combination.
    problems : list of str
        Words that are no overrides.
    """
    choices, problems = [], []
    for word in words:
        try:
            override: Override = OverridesParser.create().parse_overrides([word])[0]
        except OverrideParseException as error:
            problems.append(f"{word}: {str(error).splitlines()[0]}")
            continue
        key, _, value = word.partition("=")
        swept = override.is_sweep_override()
        values = list(override.sweep_string_iterator()) if swept else [value]
        choices.append([f"{key}={value}" for value in values])
    return [list(member) for member in itertools.product(*choices)], problems


def refuse(problems: list[str], where: str = "settings") -> None:
    """Raise one error that lists every problem; nothing happens when there is none.

    Raises
    ------
    UsageError
    """
    if problems:
        count = "a setting is wrong" if len(problems) == 1 else f"{len(problems)} settings are wrong"
        raise UsageError(
            f"{count}:\n    " + "\n    ".join(problems),
            where=where,
            fix="settings are group.key=value; the files in conf/ (`surveyproc run --settings`) list them",
        )


def setting_lines(name: str, overrides: Sequence[str] = ()) -> list[str]:
    """List the settings of a config as overrides leave them, for ``--settings``.

    Raises
    ------
    UsageError
        For overrides that are wrong.
    """
    base, problems = compose_config(name, overrides)
    refuse(problems)
    return [f"{key}={'null' if value is None else value}" for key, value in _leaves(base).items()]


def _problem(text: str, base: Any) -> str | None:
    try:
        override: Override = OverridesParser.create().parse_overrides([text])[0]
    except OverrideParseException as error:
        return f"{text}: {str(error).splitlines()[0]}"
    key = override.key_or_group
    leaves = _leaves(base)
    if key in _dictionaries(base) and "." in key:
        return (
            None
            if isinstance(override.value(), dict)
            else f"{text}: must be a dictionary, {key}={{name: value}}"
        )
    if key in leaves and "." in key:
        return None
    groups = sorted(p.name for p in config_folder().iterdir() if p.is_dir() and p.name in base)
    if key in groups:
        options = sorted(p.stem for p in (config_folder() / key).glob("*.yaml"))
        value = str(override.value())
        if value in options:
            return None
        return f"{key} has no option {value!r}.{did_you_mean(value, options)} Options: {', '.join(options)}"
    if key in leaves:
        return None
    return f"unknown setting {key!r}.{did_you_mean(key, [*leaves, *groups])}"


def _replace_dictionary(config: Any, key: str, value: Any) -> None:
    """Put a whole dictionary in its place, where Hydra would merge it with the default."""
    *parents, last = key.split(".")
    for parent in parents:
        config = config[parent]
    config[last] = OmegaConf.to_container(OmegaConf.create(value))


def _dictionaries(value: Any, prefix: str = "") -> set[str]:
    """Names of the settings that are dictionaries themselves."""
    found: set[str] = set()
    for key, item in value.items():
        if isinstance(item, dict):
            found |= {f"{prefix}{key}"} | _dictionaries(item, f"{prefix}{key}.")
    return found


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix[:-1]: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= _leaves(item, f"{prefix}{key}.")
    return found
