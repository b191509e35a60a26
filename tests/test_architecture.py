"""The rules of the house: imports go downwards only, and the light parts stay light."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "surveyproc"

# A room imports from lines below its own only; modules at the package root are below every room.
LEVELS = [
    {"cli"},
    {"api"},
    {"report"},
    {"distributed"},
    {"ingest", "search", "training", "simulate", "evaluate"},
    {"inference", "runs"},
    {"models", "votes", "catalog", "images"},
    {"config"},
]
LEVEL = {room: number for number, rooms in enumerate(reversed(LEVELS), start=1) for room in rooms}
ROOT = 0
TORCH_SIDE = {"torch", "torchvision", "timm", "diffusers", "safetensors", "numpy", "pyarrow", "fsspec"}
TORCH_SIDE |= {"huggingface_hub"}  # which timm needs
MOST_LINES = 400


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def level_of(module: str) -> int:
    return LEVEL.get(room_of(module), ROOT)


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Full names of all modules a file imports, wherever in it."""
    known = {name_of(p) for p in modules()}
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known else str(node.module))
    return frozenset(found)


def ours(path: Path) -> set[str]:
    return {name for name in imports_of(path) if name.split(".")[0] == "surveyproc"}


def test_every_folder_is_a_known_room():
    folders = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert folders <= LEVEL.keys()


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_go_downwards_only(path):
    name = name_of(path)
    if name == "surveyproc":
        pytest.skip("the package itself loads its API when it is first used")
    mine = level_of(name)
    others = {other for other in ours(path) if room_of(other) != room_of(name) or mine == ROOT}
    wrong = [other for other in others if level_of(other) > mine or level_of(other) == mine != ROOT]
    assert not wrong, f"{name} imports {', '.join(wrong)}"


def test_there_are_no_circles():
    graph = {
        name_of(p): ours(p) - {name_of(p), "surveyproc"} for p in modules() if name_of(p) != "surveyproc"
    }
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_only_distributed_imports_ray():
    users = {
        room_of(name_of(p)) for p in modules() for other in imports_of(p) if other.split(".")[0] == "ray"
    }
    assert users == {"distributed"}


@pytest.mark.parametrize("room", ["models", "inference"])
def test_the_torch_side_runs_wherever_torch_is(room):
    for path in (PACKAGE / room).rglob("*.py"):
        tops = {name.split(".")[0] for name in imports_of(path)}
        foreign = tops - TORCH_SIDE - {"surveyproc"} - set(sys.stdlib_module_names)
        assert not foreign, f"{path}: {foreign}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_no_file_is_past_the_limit(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_nothing_unpickles_weights_or_objects():
    for path in modules():
        tree = ast.parse(path.read_text())
        tensors_only = {
            id(call.func)
            for call in ast.walk(tree)
            if isinstance(call, ast.Call)
            and any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in call.keywords)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                loads = (node.value.id, node.attr) in {("torch", "load"), ("joblib", "load")}
                assert not loads or id(node) in tensors_only, path
        assert not {n.split(".")[0] for n in imports_of(path)} & {
            "pickle",
            "dill",
            "cloudpickle",
            "joblib",
        }, path


def loaded_by(code: str) -> set[str]:
    """Top-level modules loaded after running ``code`` in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint('|' + ' '.join({{m.split('.')[0] for m in sys.modules}}))"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    return set(run.stdout.rsplit("|", 1)[1].split())


HEAVY = {"torch", "ray", "timm", "astropy", "faiss", "duckdb", "pyarrow", "galsim", "hydra"}


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded_by("import surveyproc") & HEAVY


def test_help_loads_nothing_heavy():
    code = "from surveyproc.cli.main import main\nassert main(['--help']) == 0"
    assert not loaded_by(code) & (HEAVY | {"numpy"})


def verbs() -> list[str]:
    return sorted(p.stem for p in (PACKAGE / "cli").glob("[a-z]*.py") if p.stem != "main")


@pytest.mark.parametrize("verb", verbs())
def test_the_help_of_a_verb_loads_neither_torch_nor_ray(verb):
    code = f"from surveyproc.cli.main import main\nassert main([{verb!r}, '--help']) == 0"
    assert not loaded_by(code) & {"torch", "ray", "timm", "faiss", "galsim"}


def test_the_rule_sees_a_wrong_import(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("def f():\n    from surveyproc.cli import main\n    import ray.data\n")
    assert imports_of(path) == {"surveyproc.cli.main", "ray.data"}
    assert (
        level_of("surveyproc.cli.main") > level_of("surveyproc.report.page") > level_of("surveyproc.runs.run")
    )
