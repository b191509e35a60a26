"""What the page says to type works: names fill in everywhere, flags exist, the sum is what it prints."""

import contextlib
import importlib
import io
import json
import re
import shlex
import shutil
import subprocess

import pytest
import yaml
from drive import REPOSITORY

from surveyproc.cli._common import split_overrides
from surveyproc.cli.main import Parser, verbs
from surveyproc.config.run import load_run_config

INFRA = REPOSITORY / "infra"
TEXT = (INFRA / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    found = [re.search(r"(?:^|-- )(surveyproc .*)", line) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_of_ours_exists_with_its_flags(command):
    _, verb, *words = command
    assert verb in verbs()
    module = importlib.import_module(f"surveyproc.cli.{verb}")
    parser = Parser(prog=verb)
    module.add_arguments(parser)
    args, rest = parser.parse_known_args(words)
    _, settings = split_overrides(getattr(args, "bundle", None), rest)
    assert not [word for word in rest if word not in settings or word.startswith("-")]
    load_run_config(settings)


def test_the_page_uses_the_verbs_of_a_whole_run():
    assert {words[1] for words in commands()} >= {"ingest", "plan", "submit", "status", "sql", "verify"}


def test_filling_in_names_leaves_none_of_ours(tmp_path):
    (script,) = [block for block in blocks("bash") if "sed -i" in block]
    shutil.copytree(INFRA, tmp_path / "infra", ignore=shutil.ignore_patterns("locks"))
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True)
    for folder in ("aws", "k8s"):
        for path in (tmp_path / "my-infra" / folder).iterdir():
            text = path.read_text()
            for name in ("my-survey", "111122223333", "us-east-1", "OIDC_ID", "registry.example.org"):
                assert name not in text, f"{name} in {path.name}"
            assert list(yaml.safe_load_all(text)), "JSON is YAML"
    policy = (tmp_path / "my-infra" / "aws" / "bucket-policy.json").read_text()
    assert "arn:aws:s3:::my-galaxies/runs/*" in policy
    assert json.loads(policy)


def test_the_sum_prints_what_the_page_says():
    (code,) = blocks("python")
    (printed,) = re.findall(r"```python\n.*?```\n```\n(.*?)```", TEXT, flags=re.DOTALL)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    assert out.getvalue() == printed


def test_the_sum_rests_on_the_cost_the_bundle_states():
    record = json.loads((REPOSITORY / "surveyproc" / "bundles" / "gz2" / "model.json").read_text())
    assert f"ms_per_cutout = {record['cost']['ms_per_cutout']} " in blocks("python")[0]
    assert f"{record['cost']['views']} views" in TEXT


def test_the_files_it_names_are_there():
    table = re.findall(r"^\| (`[^|]*`) \|", TEXT, flags=re.MULTILINE)
    named = {name for cell in table for name in re.findall(r"`([\w./-]+)`", cell)}
    assert named == {
        str(path.relative_to(INFRA)) for path in INFRA.rglob("*.*") if path.parent.name in ("aws", "k8s")
    } | {"docker/Dockerfile"}
    for link in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (INFRA / link).exists(), link
