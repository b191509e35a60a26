"""``surveyproc doctor``: whether this machine is ready."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

HELP = "check this machine: packages, hardware, disk, and a folder's create-only writes"
EXAMPLES = """
surveyproc doctor
surveyproc doctor --output /data/runs
surveyproc doctor --output s3://bucket/runs
"""


@dataclass(frozen=True)
class Finding:
    """One line: ``ok``, ``warn`` or ``FAIL``."""

    level: str
    name: str
    detail: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "--output", default=".", metavar="DIR", help="folder or URL where runs will be written"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the findings; exit code 5 when one fails."""
    from surveyproc.cli._output import print_json

    findings = []
    for check in (_python, _packages, _hardware, _bundles):
        findings += _safely(check)
    findings += _safely(lambda: _output(args.output))
    if args.json:
        print_json([vars(f) for f in findings])
    else:
        for finding in findings:
            print(f"{finding.level:4}  {finding.name}: {finding.detail}")
    return 5 if any(f.level == "FAIL" for f in findings) else 0


def _safely(check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except Exception as error:
        return [Finding("FAIL", getattr(check, "__name__", "check").strip("_"), str(error))]


def _python() -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    yield Finding("ok" if good else "FAIL", "python", platform.python_version())


def _packages() -> Iterator[Finding]:
    import importlib.metadata

    for name in ("ray", "pyarrow", "torch", "torchvision", "timm", "duckdb", "astropy"):
        yield Finding("ok", name, importlib.metadata.version(name))
    found = [d for d in ("faiss-cpu", "faiss-gpu") if _installed(d)]
    level = "ok" if len(found) == 1 else "FAIL"
    yield Finding(
        level, "faiss", f"{' and '.join(found) or 'absent'}; install exactly one of the extras cpu, gpu"
    )
    sim = _installed("galsim")
    yield Finding(
        "ok" if sim else "warn", "galsim", "for the demo" if sim else "absent: pip install surveyproc[sim]"
    )


def _installed(name: str) -> bool:
    import importlib.metadata

    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _hardware() -> Iterator[Finding]:
    from surveyproc.inference.settings import resolve_device, resolve_precision

    device = resolve_device("auto")
    precision = resolve_precision("auto", device)
    yield Finding("ok", "device", f"{device}, {precision}, {len(os.sched_getaffinity(0))} cores")
    shared = shutil.disk_usage("/dev/shm").free / 1e9  # noqa: S108
    level = "ok" if shared > 0.3 else "warn"
    yield Finding(
        level, "shared memory", f"{shared:.1f} GB free in /dev/shm (Ray's object store takes 0.3 GB)"
    )


def _bundles() -> Iterator[Finding]:
    from surveyproc.models.bundle import open_bundle, shipped_bundles

    for name in shipped_bundles():
        open_bundle(name).build()
        yield Finding("ok", f"bundle {name}", "opens, its digest is right, its tensors fit")


def _output(folder: str) -> Iterator[Finding]:
    from surveyproc.storage import Storage

    storage = Storage(folder)
    if storage.is_local:
        os.makedirs(folder, exist_ok=True)
        free = shutil.disk_usage(folder).free / 1e9
        yield Finding("ok" if free > 5 else "warn", "disk", f"{free:.0f} GB free in {folder}")
        with tempfile.TemporaryDirectory(prefix=".surveyproc-doctor-", dir=folder) as scratch:
            good = Storage(scratch).creates_only_once()
    else:
        good = storage.creates_only_once()
    if good:
        yield Finding("ok", "create-only", f"a second create of the same name is refused in {folder}")
    elif storage.is_local:
        yield Finding("FAIL", "create-only", f"{folder} overwrites: commits are not safe")
    else:
        detail = f"{folder} overwrites: one driver alone may work on a run there, a second is refused"
        yield Finding("warn", "create-only", detail)
