"""SIGKILL while runs are published: readers are kept off, and the same command finishes to the same files."""

from __future__ import annotations

import killing
import numpy as np
import pytest
from drive import forked, lasting_digests, run_here
from toys import toy_bundle, toy_catalog

from surveyproc.runs.publish import publish
from surveyproc.runs.verify_catalog import verify_catalog

MARGIN = 3600.0
KILLS = [
    ("making.marked", "", 1),
    ("attempt.part", "publish-morphology-0-", 1),
    ("commit.done", "publish-embeddings", 2),
    ("commit.ready", "margin-", 1),
    ("making.described", "", 1),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(1)
    positions = rng.uniform(42, 48, 120), rng.uniform(-3, 3, 120)
    catalog = toy_catalog(folder / "in.cat", rows=120, positions=positions)
    run_here(catalog, folder / "a.run", toy_bundle(folder / "toy"), "engine.shard_rows=40")
    publish([str(folder / "a.run")], str(folder / "whole"), "hats", margin_arcsec=MARGIN)
    return str(folder / "a.run"), lasting_digests((folder / "whole" / "checksums.sha256").read_bytes())


@pytest.mark.chaos
@pytest.mark.parametrize(("step", "subject", "hit"), KILLS)
def test_killed_and_given_again_it_publishes_the_same(run, tmp_path, step, subject, hit):
    uri, expected = run
    output = tmp_path / "out"
    words = ["publish", uri, "--format", "hats", "--output", str(output), "--margin", str(MARGIN)]
    env = killing.prepare(tmp_path / "kills", [{"step": step, "subject": subject, "hit": hit}])
    assert forked(words, tmp_path / "first", env).returncode == -9, "the kill did not hit"
    assert [k["step"] for k in killing.killed(tmp_path / "kills")] == [step]
    assert (output / "_unfinished").exists()
    if step != "making.described":
        assert not (output / "collection.properties").exists()

    again = forked(words, tmp_path / "second", env)
    assert again.returncode == 0, again.stderr
    assert lasting_digests((output / "checksums.sha256").read_bytes()) == expected
    assert not (output / "_work").exists()
    assert not (output / "_unfinished").exists()
    assert all(check.passed for check in verify_catalog(str(output)))
