"""The Dockerfile cannot be built here; its parts can be checked against the repository."""

import re
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch

import pytest
import yaml
from dockerfiles import copied, environment, lineage, read_stages
from drive import REPOSITORY
from locks import locked

DOCKERFILE = REPOSITORY / "infra" / "docker" / "Dockerfile"
STAGES = read_stages(DOCKERFILE)
targets = pytest.mark.parametrize("target", ["cpu", "gpu"])


def from_repository() -> list[str]:
    return [
        source
        for stage in STAGES.values()
        for origin, sources in copied(stage)
        if not origin
        for source in sources
    ]


@targets
def test_a_target_has_the_packages_of_its_lock(target):
    origins = {origin for origin, _ in copied(STAGES[target])}
    assert origins == {f"packages-{target}"}
    (lock,) = [s for origin, sources in copied(STAGES[f"packages-{target}"]) if not origin for s in sources]
    assert lock == f"infra/locks/{target}.lock"
    (install,) = STAGES[f"packages-{target}"].all("RUN")
    assert install == f"uv pip install --require-hashes -r /locks/{target}.lock"


def test_the_locks_are_those_that_make_lock_writes():
    makefile = (REPOSITORY / "Makefile").read_text()
    used = {source for source in from_repository() if source.endswith(".lock")}
    assert used == {f"infra/locks/{name}.lock" for name in ("bootstrap", "cpu", "gpu")}
    assert all(name in makefile for name in used)


def test_everything_installed_is_checked_by_hash():
    installs = [run for stage in STAGES.values() for run in stage.all("RUN") if "pip install" in run]
    assert len(installs) == 5
    for run in installs:
        assert "--require-hashes" in run or run.endswith("--no-deps --no-build-isolation /src")
    for lock in ("cpu", "gpu"):
        assert "hatchling" in locked(lock), "it builds the package without reaching for the network"


def test_every_source_is_in_the_repository_and_in_the_build_context():
    ignore = [
        line for line in (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines() if line
    ]
    allowed = [line[1:] for line in ignore if line.startswith("!")]
    assert "*" in ignore
    for source in from_repository():
        assert (REPOSITORY / source).exists(), source
        assert any(source == entry or source.startswith(f"{entry}/") for entry in allowed), source
    assert not [entry for entry in allowed if not any(s.startswith(entry) for s in from_repository())]


def test_stages_copy_only_from_stages_before_them():
    seen = []
    for stage in STAGES.values():
        assert all(origin in ("", *seen) for origin, _ in copied(stage))
        mounted = re.findall(r"from=(\w+)", " ".join(stage.all("RUN")))
        assert set(mounted) <= set(seen)
        seen.append(stage.name)


def test_images_are_pinned_and_both_targets_share_their_base():
    outside = {stage.image for stage in STAGES.values()} - STAGES.keys() - {"scratch"}
    assert outside == {"python:3.11-slim-bookworm"}
    assert lineage(STAGES, "cpu")[0] == lineage(STAGES, "gpu")[0] == STAGES["base"]
    assert lineage(STAGES, "packages-cpu")[0] == STAGES["base"], "packages are compiled for that Python"


def test_the_python_is_the_one_the_locks_were_resolved_for():
    (version,) = re.findall(r"--python-version (\S+)", (REPOSITORY / "Makefile").read_text())
    assert STAGES["base"].image.startswith(f"python:{version}-")


@targets
def test_the_image_runs_as_the_user_the_pods_ask_for(target):
    (user,) = STAGES[target].all("USER")
    job = yaml.safe_load((REPOSITORY / "infra" / "k8s" / "rayjob.yaml").read_text())
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert int(user) == head["securityContext"]["runAsUser"] != 0, "a name would not pass runAsNonRoot"
    assert any(f"useradd --uid {user} " in run for run in STAGES["base"].all("RUN"))
    assert STAGES[target].instructions[-1][0] == "CMD"
    assert not STAGES[target].all("ENTRYPOINT"), "KubeRay and `ray up` bring their own commands"


@targets
def test_the_image_has_what_its_launchers_call(target):
    """KubeRay probes with wget, `ray up` copies with rsync, and both call ray from a login shell."""
    (packages,) = [run for run in STAGES["base"].all("RUN") if "apt-get install" in run]
    assert {"wget", "rsync"} <= set(packages.split())
    assert ("packages-" + target, ["/usr/local"]) in copied(STAGES[target]), (
        "where every shell looks for programs"
    )
    assert environment(STAGES, target)["HOME"] == "/home/ray"


@targets
def test_workers_do_not_build_environments_of_their_own(target):
    assert environment(STAGES, target)["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] == "0"


def test_only_the_gpu_image_asks_for_the_driver():
    assert environment(STAGES, "gpu")["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert "NVIDIA_VISIBLE_DEVICES" not in environment(STAGES, "cpu")


def test_the_files_copied_make_a_whole_wheel(tmp_path):
    """Build the wheel from nothing but what the stage `source` copies, the way the image does."""
    for _, sources in copied(STAGES["source"]):
        for source in sources:
            if (REPOSITORY / source).is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(REPOSITORY / source, tmp_path / "src" / source, ignore=ignore)
            else:
                (tmp_path / "src").mkdir(exist_ok=True)
                shutil.copy(REPOSITORY / source, tmp_path / "src" / source)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=tmp_path / "src", check=True, capture_output=True, text=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "surveyproc/conf/run.yaml",
        "surveyproc/votes/schemas/gz2.yaml",
        "surveyproc/bundles/gz2/model.safetensors",
        "*/entry_points.txt",
    ):
        assert any(fnmatch(name, wanted) for name in names), wanted
    code = {str(p.relative_to(REPOSITORY)) for p in (REPOSITORY / "surveyproc").rglob("*.py")}
    assert code <= set(names)
