"""Switch a rule of the ledger off in a copy of the repository: the small storm must fail there.

make mutations
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from drive import REPOSITORY

TESTS = "tests/chaos/test_storm.py"
# What is switched off: file, the text that does it, and what stands there instead.
MUTATIONS = {
    "the read-back rule (a refused create counts as lost)": [
        (
            "surveyproc/storage.py",
            "return self.read(name) == data",
            "self.read(name)\n                    return False",
        ),
        (
            "surveyproc/runs/ledger.py",
            '            self.storage.create(f"{COMMITS}/{mine.unit}.json", mine.to_bytes())\n',
            '            if not self.storage.create(f"{COMMITS}/{mine.unit}.json", mine.to_bytes()):\n'
            "                self.storage.delete_folder(attempt_folder(mine.unit, mine.attempt))\n",
        ),
    ],
    "the create-only flag": [
        (
            "surveyproc/storage.py",
            'self.fs.pipe_file(self.path(name), data, mode="create")',
            "self.fs.pipe_file(self.path(name), data)",
        ),
    ],
    "the reject accounting": [
        (
            "surveyproc/inference/engine.py",
            "        ).take(pa.array(bad, type=pa.int64()))",
            "        ).take(pa.array(bad[:0], type=pa.int64()))",
        ),
        (
            "surveyproc/inference/engine.py",
            "for row in bad], type=field.type)",
            "for row in bad[:0]], type=field.type)",
        ),
        ("surveyproc/runs/accounts.py", "    if wrong:\n", "    if False:\n"),
    ],
}


def main() -> int:
    """Try all mutations and none; exit code 1 when the storm does not tell them apart."""
    wrong = 0
    for name, changes in {"nothing": [], **MUTATIONS}.items():
        failures = storm_failures(changes)
        good = bool(failures) == bool(changes)
        wrong += not good
        print(f"{'ok  ' if good else 'BAD '} switched off: {name}: {len(failures)} tests fail", flush=True)
        print("".join(f"       {line}\n" for line in failures), end="", flush=True)
    return int(bool(wrong))


def storm_failures(changes: list[tuple[str, str, str]]) -> list[str]:
    """Lines of pytest on the tests that fail with these changes."""
    with tempfile.TemporaryDirectory(prefix="surveyproc-mutation-") as scratch:
        copy = Path(scratch, "copy")
        kept = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache")
        shutil.copytree(REPOSITORY, copy, ignore=kept)
        for file, text, instead in changes:
            source = (copy / file).read_text()
            assert source.count(text) == 1, f"{file} has changed: {text!r}"
            (copy / file).write_text(source.replace(text, instead))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", TESTS]
        env = {**os.environ, "PYTHONPATH": str(copy)}
        done = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True)
        if done.returncode not in (0, 1):
            raise RuntimeError(done.stdout[-3000:] + done.stderr[-3000:])
        return [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]


if __name__ == "__main__":
    sys.exit(main())
