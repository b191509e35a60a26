"""Random faults over whole runs: kills at every step, broken answers of the store, nodes that die.

    make chaos
    PYTHONPATH=.:tests:tests/chaos:tests/cluster python tests/chaos/storm.py --rows 20000 --shards 200 --seed 1

It runs a survey on a Ray cluster of two nodes against a bucket behind the fault proxy, kills what is at work as often as
asked, gives the same command again until the run is finished, and compares what came out with an undisturbed run: rows lost,
rows doubled, values different. Every fault is printed with the shard and the step it hit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import astuple, dataclass
from pathlib import Path

import killing
import numpy as np
import pyarrow as pa
from drive import REPOSITORY, TESTS, bits, end_session, run_here, tables_of
from stores import Server, fault_proxy, s3_server
from toys import toy_bundle, toy_catalog, toy_pixels

HERE = Path(__file__).resolve().parent
# (step, subject): every step of attempt, commit and finalise, at every kind of unit that reaches it.
STEPS = [
    ("create.temporary", "run.json"),
    ("create.linked", "run.json"),
    ("create.temporary", "_plan.parquet"),
    ("create.linked", "_plan.parquet"),
    ("attempt.begun", "shard-"),
    ("attempt.predicted", "shard-"),
    ("attempt.part", "shard-"),
    ("attempt.checked", "shard-"),
    ("commit.ready", "shard-"),
    ("create.temporary", "_commits/shard-"),
    ("create.linked", "_commits/shard-"),
    ("commit.done", "shard-"),
    ("finalise.surveyed", ""),
    ("attempt.begun", "merge-"),
    ("attempt.part", "merge-"),
    ("commit.ready", "merge-"),
    ("create.linked", "_commits/merge-"),
    ("commit.done", "merge-"),
    ("merge.published", "merge-"),
    ("attempt.part", "index-"),
    ("create.linked", "_commits/index-"),
    ("index.published", "index-"),
    ("finalise.metadata", ""),
    ("create.linked", "_manifests/"),
    ("finalise.manifest", ""),
    ("finalise.done", ""),
]
# A run passes these once: of each run one of them can be hit, so that the last two have a small run each.
ONCE = STEPS[-2:]
SMALL_ROWS, SMALL_SHARDS = 200, 4
KINDS = ("503", "cut", "truncate", "lost", "delay")
SETTINGS = ["engine.batch_size=16", "engine.views=2", "limits.max_reject_fraction=0.9"]
SHARD = re.compile(
    r"(shard-\d+|merge-[\w-]+?(?=-[0-9a-f]{16}|\.json|/)|index-[\w-]+?(?=-[0-9a-f]{16}|\.json|/))"
)


@dataclass(frozen=True)
class Toll:
    """What a storm cost: to be all zeros."""

    lost: int
    doubled: int
    different: int

    @property
    def nothing(self) -> bool:
        """Whether no row was lost or doubled, and no value differs."""
        return not (self.lost or self.doubled or self.different)


def make_survey(folder: Path, rows: int, shards: int) -> tuple[Path, Path, int]:
    """Write a catalog with duplicates and unusable cutouts, and a bundle; returns them and the rows of a shard."""
    rng = np.random.default_rng(5)
    ids = list(range(-rows // 2, rows - rows // 2))
    pixels = toy_pixels(rows)
    for row in rng.choice(np.arange(rows // 2, rows), max(2, rows // 100), replace=False):
        ids[row] = ids[int(rng.integers(0, rows // 2))]
    pixels[rng.choice(rows, max(2, rows // 50), replace=False)] = 7
    per_shard = rows // shards
    positions = rng.uniform(41, 49, rows), rng.uniform(0, 4, rows)
    catalog = toy_catalog(folder / "in.cat", rows, per_shard, positions, ids, pixels)
    return catalog, toy_bundle(folder / "toy"), per_shard


def undisturbed(folder: Path, catalog: Path, bundle: Path, per_shard: int) -> dict[str, pa.Table]:
    """Tables of a run that nothing befalls, in one process on a disk."""
    run_here(catalog, folder / "undisturbed.run", bundle, *SETTINGS, f"engine.shard_rows={per_shard}")
    return tables_of(folder / "undisturbed.run")


def toll(found: dict[str, pa.Table], expected: dict[str, pa.Table]) -> Toll:
    """Count, over all tables, rows that are missing or too many, and values that differ by a bit."""
    lost = doubled = different = 0
    for name, table in expected.items():
        keys = [_keys(t, name) for t in (found.get(name, table.slice(0, 0)), table)]
        here, there = (Counter(k) for k in keys)
        lost += (there - here).total()
        doubled += (here - there).total()
        if keys[0] == keys[1]:
            for column in table.column_names:
                if bits(found[name][column]) != bits(table[column]):
                    different += 1
        else:
            different += 1
    return Toll(lost, doubled, different)


def _keys(table: pa.Table, name: str) -> list:
    columns = ["object_id", "reason"] if name == "rejects" else ["object_id"]
    return list(zip(*(table[c].to_pylist() for c in columns)))


def kill_plan(dice: random.Random, shards: int, extra: int) -> list[dict]:
    """One kill at every step, and ``extra`` more at steps of random shards."""
    kills = [
        {"step": step, "subject": subject, "hit": 1 + 2 * (subject == "shard-")}
        for step, subject in STEPS
        if (step, subject) not in ONCE
    ]
    of_shards = [(step, subject) for step, subject in STEPS if "shard-" in subject]
    for _ in range(extra):
        step, subject = dice.choice(of_shards)
        kills.append({"step": step, "subject": f"{subject}{dice.randrange(shards):07d}", "hit": 1})
    return kills


def store_rules(chance: float, times: int) -> list[dict]:
    """Break this share of all answers, each kind at most ``times``."""
    return [{"kind": kind, "chance": chance, "times": times} for kind in KINDS]


def describe(fault: dict) -> str:
    """One line of the log: what was broken or killed, in which shard or unit, at which step."""
    if "kind" in fault:
        unit = SHARD.search(fault["path"])
        what = fault["path"].partition("?")[0].rsplit("/", 1)[-1] or "a listing"
        return f"store {fault['kind']:9} {unit[0] if unit else '-':28} {fault['method']} {what}"
    return f"SIGKILL of {fault['who']:8} {fault['subject'] or '-':28} {fault['step']}"


def hit_steps(kills: list[dict]) -> set[tuple[str, str]]:
    """Which of `STEPS` were killed at."""
    return {(s, u) for s, u in STEPS if any(k["step"] == s and k["subject"].startswith(u) for k in kills)}


def created_twice(folder: Path) -> list[str]:
    """Names that more than one process was told it had created: there must be none, ever."""
    return [name for name, times in Counter(killing.created(folder)).items() if times > 1]


@dataclass(frozen=True)
class Target:
    """A run to be driven: the catalog's and the run's names in the bucket, rows of a shard, what must come out."""

    catalog: str
    run: str
    per_shard: int
    expected: dict[str, pa.Table]


class Storm:
    """A cluster of two nodes, a bucket, a proxy before it, and what is to befall them."""

    def __init__(self, folder: Path, arguments: argparse.Namespace, stack: ExitStack) -> None:
        from test_two_nodes import Bucket
        from twonodes import Network, RayNodes

        self.dice = random.Random(arguments.seed)
        self.arguments, self.folder = arguments, folder
        catalog, bundle, per_shard = make_survey(folder, arguments.rows, arguments.shards)
        print(
            f"{arguments.rows:,} cutouts in {arguments.shards} shards; first an undisturbed run", flush=True
        )
        self.main = Target("in.cat", "out.run", per_shard, undisturbed(folder, catalog, bundle, per_shard))
        self.network = stack.enter_context(Network())
        with self.network.inside():
            server: Server = stack.enter_context(s3_server())
            behind, self.faults = stack.enter_context(fault_proxy(server, folder / "proxy"))
        self.bucket = Bucket(self.network, server)
        for path, key in ((catalog, "in.cat"), (bundle, "toy")):
            self.bucket.upload(path, key)
        self.kills = folder / "kills"
        hooks = killing.prepare(self.kills, kill_plan(self.dice, arguments.shards, arguments.kills))
        paths = (REPOSITORY, TESTS, HERE)
        env = behind.env | hooks | {"PYTHONPATH": os.pathsep.join(str(p) for p in paths)}
        (folder / "nodes").mkdir()
        self.nodes = RayNodes(
            self.network, folder / "nodes", workers=1, cpus=2, env=env, all_write=[self.kills]
        )
        stack.enter_context(self.nodes)
        self.others: list[dict] = []

    def command(self, target: Target) -> list[str]:
        """The one command, given again and again."""
        uri = self.bucket.uri
        words = ["run", "--input", f"{uri}/{target.catalog}", "--output", f"{uri}/{target.run}"]
        words += ["--bundle", f"{uri}/toy", *SETTINGS, f"engine.shard_rows={target.per_shard}"]
        words += [f"cluster={self.nodes.gcs}", "cluster.actors=2"]
        return ["python", "-m", "surveyproc.cli.main", *words]

    def injected(self) -> list[dict]:
        """All faults so far."""
        return killing.killed(self.kills) + self.others + self.faults.injected()

    def commits(self) -> int:
        """Shards committed so far."""
        return len(self.bucket.keys(f"{self.main.run}/_commits/shard-"))

    def rage(self) -> int:
        """Drive the run to its end through all faults; returns how often the command was given."""
        self.faults.set(*store_rules(self.arguments.chance, self.arguments.store_faults))
        given, until = 0, time.monotonic() + self.arguments.minutes * 60
        nodes = sorted(self.dice.sample(range(20, self.arguments.shards - 20), self.arguments.nodes))
        drivers = sorted(self.dice.sample(range(5, self.arguments.shards - 5), self.arguments.drivers))
        while True:
            given += 1
            driver = self.nodes.head.start(self.command(self.main))
            while driver.poll() is None:
                if time.monotonic() > until:
                    end_session(driver.pid)
                    raise TimeoutError(f"unfinished after {self.arguments.minutes} minutes")
                time.sleep(0.5)
                done = self.commits() if nodes or drivers else 0
                if nodes and done >= nodes[0]:
                    self._note("a node", f"{done} shards committed", nodes.pop(0))
                    self.nodes.workers.pop(0).kill()
                    self.nodes.add_worker(wait=False)
                if drivers and done >= drivers[0]:
                    self._note("driver", f"{done} shards committed", drivers.pop(0))
                    self._kill_driver()
            if self._ended(driver, given):
                return given

    def coda(self) -> Iterator[Target]:
        """Drive a small run for each step that a run passes only once, and kill it there."""
        folder = self.folder / "small"
        catalog, bundle, per_shard = make_survey(folder, SMALL_ROWS, SMALL_SHARDS)
        expected = undisturbed(folder, catalog, bundle, per_shard)
        self.bucket.upload(catalog, "small.cat")
        plan = self.kills / killing.PLAN
        for number, (step, subject) in enumerate(ONCE):
            kill = {"step": step, "subject": subject, "hit": 1, "who": "self"}
            plan.write_text(json.dumps([*json.loads(plan.read_text()), kill]))
            target = Target("small.cat", f"small-{number}.run", per_shard, expected)
            given = 1
            while not self._ended(self.nodes.head.start(self.command(target)), given):
                given += 1
            yield target

    def _ended(self, driver: subprocess.Popen, given: int) -> bool:
        """Wait for a driver; whether it finished the run. A kill and a store that stays away may end it too."""
        out, err = driver.communicate()
        last = (err.strip() or out.strip()).splitlines()[-1:]
        print(
            f"command {given}: exit {driver.returncode}; {len(self.injected())} faults so far; {last}",
            flush=True,
        )
        if driver.returncode == 0:
            return True
        if driver.returncode not in (-signal.SIGKILL, 128 + signal.SIGKILL, 4, 5):
            raise AssertionError(f"exit {driver.returncode}:\n{out[-2000:]}\n{err[-4000:]}")
        return False

    def _note(self, who: str, step: str, at: int) -> None:
        self.others.append({"who": who, "subject": f"after shard {at}", "step": step, "time": time.time()})

    def _kill_driver(self) -> None:
        for pid, command in self.nodes.head.processes().items():
            if "surveyproc.cli.main run" in command:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def judge(self, target: Target) -> tuple[Toll, list[str]]:
        """Compare a run with the undisturbed one; and lines of `verify` and orphans that are wrong."""
        uri = f"{self.bucket.uri}/{target.run}"
        verified = self.nodes.head.run(["python", "-m", "surveyproc.cli.main", "verify", uri])
        wrong = [line for line in verified.stdout.splitlines() if line.startswith("FAIL")]
        if verified.returncode:
            wrong = wrong or [verified.stderr[-500:]]
        copy = self.bucket.download(target.run, self.folder / "copy")
        orphans = [str(p.relative_to(copy)) for p in (copy / "_attempts").rglob("*") if p.is_file()]
        return toll(tables_of(copy), target.expected), wrong + [f"orphan {name}" for name in orphans]


def main() -> int:
    """Run a storm; exit code 1 when anything was lost, doubled or different."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--faults", type=int, default=100, help="at least so many are wanted")
    parser.add_argument("--kills", type=int, default=10, help="besides one at every step")
    parser.add_argument("--nodes", type=int, default=2, help="nodes to kill")
    parser.add_argument("--drivers", type=int, default=3, help="drivers to kill between commits")
    parser.add_argument("--store-faults", type=int, default=30, help="of each of the five kinds, at most")
    parser.add_argument(
        "--chance", type=float, default=0.004, help="that an answer of the store breaks, for each kind"
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="surveyproc-storm-") as scratch, ExitStack() as stack:
        storm = Storm(Path(scratch), arguments, stack)
        given = storm.rage()
        storm.faults.set()
        twice = [f"created twice: {name}" for name in created_twice(storm.kills)]
        verdicts = [storm.judge(target) for target in (storm.main, *storm.coda())]
        cost = Toll(*(sum(values) for values in zip(*(astuple(toll) for toll, _ in verdicts))))
        wrong = twice + [line for _, lines in verdicts for line in lines]
        faults = sorted(storm.injected(), key=lambda fault: fault["time"])
        for fault in faults:
            print(describe(fault))
    kills = [fault for fault in faults if "step" in fault]
    missed = [s for s in STEPS if s not in hit_steps(kills)]
    print(
        f"\n{len(faults)} faults injected: {dict(Counter(f.get('kind') or 'SIGKILL of ' + f['who'] for f in faults))}"
    )
    print(f"{len(faults)} survived; the command was given {given} times, {time.monotonic() - started:.0f} s")
    print(
        f"steps hit by a kill: {len(STEPS) - len(missed)} of {len(STEPS)}{'; missed ' + str(missed) if missed else ''}"
    )
    print(f"rows lost {cost.lost}, rows doubled {cost.doubled}, values different {cost.different}")
    print("\n".join(["verify and orphans: " + (f"{len(wrong)} wrong" if wrong else "nothing wrong"), *wrong]))
    return int(bool(wrong or missed or not cost.nothing or len(faults) < arguments.faults))


if __name__ == "__main__":
    sys.exit(main())
