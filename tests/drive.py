"""Drive the command line in processes of its own, and compare what the runs left behind."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa

REPOSITORY = Path(__file__).resolve().parent.parent
TESTS = Path(__file__).resolve().parent
ENGINE = ["engine.batch_size=16", "engine.views=2"]

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "surveyproc.api",
        "surveyproc.catalog.sky",
        "surveyproc.cli.run",
        "surveyproc.config.run",
        "astropy.coordinates",
        "astropy.wcs.utils",
        "cdshealpix.nested",
        "surveyproc.cli.ingest",
        "surveyproc.distributed.ingest",
        "surveyproc.distributed.job",
        "surveyproc.models.morphology",
    ]
)


def environment(extra: dict | None = None) -> dict[str, str]:
    """Environment in which this checkout and the hooks of the tests are found first."""
    path = [str(REPOSITORY), str(TESTS), str(TESTS / "chaos"), str(TESTS / "distributed")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"} | (extra or {})


def run_words(catalog, output, bundle, *settings: str) -> list[str]:
    """Words of a small ``surveyproc run``."""
    return [
        "run",
        "--input",
        str(catalog),
        "--output",
        str(output),
        "--bundle",
        str(bundle),
        *ENGINE,
        *settings,
    ]


@contextmanager
def started(words: list[str], env: dict | None = None, **popen):
    """Start ``surveyproc WORDS`` as its own process group; whatever is left of it is killed at the end."""
    command = [sys.executable, "-m", "surveyproc.cli.main", *words]
    process = subprocess.Popen(
        command,
        env=environment(env),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_die_with_parent,
        **popen,
    )
    try:
        yield process
    finally:
        end_session(process.pid)
        process.communicate()


def _die_with_parent() -> None:
    """Have the kernel kill this process when the tests are killed (Linux: PR_SET_PDEATHSIG).

    Ctrl-C is listened to even when the tests run in the background of a shell, which ignores it.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def surveyproc(words: list[str], env: dict | None = None, timeout: float = 240, **popen):
    """Run ``surveyproc WORDS`` to its end."""
    with started(words, env, **popen) as process:
        out, err = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def forked(words: list[str], scratch: Path, env: dict | None = None, timeout: float = 280):
    """Run ``surveyproc WORDS`` in a fork of a process that has torch loaded: a second instead of five."""
    scratch.mkdir(parents=True, exist_ok=True)
    process = _FORKS.Process(target=_child, args=(words, environment(env), str(scratch)), daemon=True)
    process.start()
    process.join(timeout)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.exitcode is None:
        process.join()
        raise TimeoutError(f"surveyproc {' '.join(words)} took more than {timeout} s")
    out, err = ((scratch / name).read_text() for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess(words, process.exitcode, out, err)


def _child(words: list[str], env: dict[str, str], scratch: str) -> None:
    os.setsid()
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{scratch}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    os.environ.update(env)
    sys.path[:0] = env["PYTHONPATH"].split(os.pathsep)
    sys.argv = ["surveyproc", *words]
    code = 1
    try:
        from surveyproc.cli.main import main

        code = main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end_session(leader: int) -> None:
    """Kill every process of the session that ``leader`` leads or led, whatever group it moved to."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader:
                os.kill(int(entry.name), signal.SIGKILL)


def tables_of(run) -> dict[str, pa.Table]:
    """All tables of a finished run, each sorted by id."""
    from surveyproc.runs import open_run

    opened = open_run(str(run))
    assert opened.manifest, f"{run} is not finished"
    return {name: opened.table(name).sort_by("object_id") for name in opened.tables}


def assert_same_tables(found: dict[str, pa.Table], expected: dict[str, pa.Table]) -> None:
    """Compare rows, columns and every bit of every value."""
    assert found.keys() == expected.keys()
    for name, table in expected.items():
        assert found[name].schema.equals(table.schema), name
        assert found[name]["object_id"].to_pylist() == table["object_id"].to_pylist(), name
        for column in table.column_names:
            one, other = bits(found[name][column]), bits(table[column])
            assert one == other, f"{name}.{column} differs"


def bits(column: pa.ChunkedArray) -> tuple:
    """Nulls and bytes of a column; unlike ``==`` it tells -0.0 from 0.0 and takes NaN for itself."""
    array = column.combine_chunks()
    nulls = array.is_null().to_numpy(zero_copy_only=False).tobytes()
    if pa.types.is_fixed_size_list(array.type):
        array = array.flatten()
    if pa.types.is_string(array.type):
        return nulls, array.to_pylist()
    return nulls, array.fill_null(0).to_numpy(zero_copy_only=False).tobytes()


def assert_sound(run) -> None:
    """`verify` passes, and nothing of the way there is left."""
    from surveyproc.runs import open_run
    from surveyproc.runs.verify import verify_run

    failed = [c for c in verify_run(open_run(str(run))) if not c.passed]
    assert not failed, failed
    left = sorted(str(p.relative_to(run)) for p in Path(run).rglob("*"))
    orphans = [p for p in left if p.startswith("_attempts") or Path(p).name.startswith(".")]
    assert not orphans, orphans


def lasting_digests(data: bytes) -> list[str]:
    """The lines of ``checksums.sha256`` but of the files that tell of a command and its time."""
    telling = ("catalog.json", ".properties")
    return [line for line in data.decode().splitlines() if not line.endswith(telling)]


def ids_of(table: pa.Table) -> np.ndarray:
    """The ids of a table as numpy."""
    return table["object_id"].to_numpy()


def result_of(process: subprocess.CompletedProcess) -> dict:
    """What ``--json`` printed."""
    return json.loads(process.stdout)


def run_here(catalog, output, bundles, *settings: str, **flags):
    """`surveyproc.run` in this process; ``bundles`` is one path or several."""
    import surveyproc

    names = [str(b) for b in (bundles if isinstance(bundles, list) else [bundles])]
    first = [*ENGINE, "engine.shard_rows=10", "cluster=none", "cluster.actors=2"]
    return surveyproc.run(catalog, output, names, [*first, *settings], **flags)
