"""Run a command as if on a machine of its own: nothing but its scratch can be written, and folders are hidden.

    unshare --uts --mount --pid --fork --kill-child --mount-proc python jail.py [--hide DIR] [--write DIR] -- COMMAND

Everything is mounted read-only, `SCRATCH` and the shared memory are new and empty, and a hidden folder is an
empty one: a path of another machine that leaks into this one is missing, or cannot be written.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
from pathlib import Path

SCRATCH = Path("/srv")
SHARED_MEMORY = Path("/dev/shm")
KERNEL = ("/proc", "/sys", "/dev")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hide", action="append", default=[], type=Path)
    parser.add_argument("--write", action="append", default=[], type=Path)
    parser.add_argument("--copy", action="append", default=[], type=Path, help="into the scratch")
    parser.add_argument("--hostname", default="client")
    parser.add_argument("--shared-memory", default="50%", help="size of /dev/shm")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    socket.sethostname(args.hostname)
    mount("--make-rprivate", "/")
    tmpfs(SCRATCH)
    tmpfs(SHARED_MEMORY, f"size={args.shared_memory}")
    for file in args.copy:
        shutil.copy(file, SCRATCH)
    for name in ("tmp", "home"):
        (SCRATCH / name).mkdir()
    kept = [folder.resolve() for folder in args.write]
    for number, folder in enumerate(kept):
        (SCRATCH / f"keep{number}").mkdir()
        mount("--bind", str(folder), str(SCRATCH / f"keep{number}"))
    covered = [SCRATCH, SHARED_MEMORY]
    for folder in (f.resolve() for f in args.hide):
        tmpfs(folder, "size=1m")
        covered.append(folder)
    for number, folder in enumerate(kept):
        folder.mkdir(parents=True, exist_ok=True)
        mount("--move", str(SCRATCH / f"keep{number}"), str(folder))
        (SCRATCH / f"keep{number}").rmdir()
    writable = {str(p) for p in [SCRATCH, SHARED_MEMORY, *kept]}
    for target in mounts():
        below = any(Path(target) != c and c in Path(target).parents for c in covered)
        if target not in writable and not target.startswith(KERNEL) and not below:
            mount("-o", "remount,bind,ro", target)
    os.chdir(SCRATCH)
    os.execvp(args.command[0], args.command)


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def tmpfs(folder: Path, options: str = "size=2g") -> None:
    mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder))


def mounts() -> list[str]:
    """Where something is mounted, in the order it was."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return list(dict.fromkeys(line.split()[4].encode().decode("unicode_escape") for line in lines))


if __name__ == "__main__":
    main()
