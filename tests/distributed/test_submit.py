"""Submissions: names, attaching, what is shipped, and what a job's end means."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
from drive import REPOSITORY
from ray.job_submission import JobStatus

from surveyproc.cli.main import main
from surveyproc.distributed import submit as jobs
from surveyproc.distributed.shipping import staged
from surveyproc.distributed.submit import choose_submission, follow, job_name, run_words
from surveyproc.errors import PartialError, ResourceError, UsageError
from surveyproc.runs.version import code_version, git_commit
from surveyproc.stores import configured

OUTPUT, ENTRY = "s3://bucket/out.run", "python -m surveyproc.cli.main run"


def job(submission_id, status, entrypoint=ENTRY, output=OUTPUT, **more):
    return SimpleNamespace(
        submission_id=submission_id,
        status=JobStatus(status),
        entrypoint=entrypoint,
        metadata={"surveyproc_output": output},
        **more,
    )


def choose(*found):
    chosen = choose_submission(found, "out.run", OUTPUT, ENTRY)
    return chosen.id, chosen.attached


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://bucket/out.run", "out.run"),
        ("s3://bucket/runs/2026/", "2026"),
        ("gs://b/night of 3/à la carte?.run", "la-carte-.run"),
        ("s3://bucket/...", "run"),
    ],
)
def test_a_job_is_named_after_the_run(uri, name):
    assert job_name(uri) == name


def test_the_next_number_is_taken_whatever_became_of_the_last():
    assert choose() == ("out.run-1", False)
    assert choose(job("out.run-1", "FAILED")) == ("out.run-2", False)
    assert choose(job("out.run-9", "SUCCEEDED"), job("out.run-10", "STOPPED")) == ("out.run-11", False)
    assert choose(job(None, "RUNNING"), job("other-3", "RUNNING"), job("out.run-x", "RUNNING")) == (
        "out.run-1",
        False,
    )
    assert choose(job("my-out.run-7", "RUNNING"), job("out.run-7-2", "RUNNING")) == ("out.run-1", False)


@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
def test_a_job_at_this_run_is_attached_to(status):
    assert choose(job("out.run-1", "FAILED"), job("out.run-2", status)) == ("out.run-2", True)


def test_a_run_of_the_same_name_elsewhere_is_another_one():
    assert choose(job("out.run-1", "RUNNING", output="s3://else/out.run")) == ("out.run-2", False)


def test_a_job_at_this_run_with_other_settings_is_not_attached_to():
    with pytest.raises(UsageError, match=r"engine\.views=1") as caught:
        choose(job("out.run-1", "RUNNING", entrypoint=f"{ENTRY} engine.views=1"))
    assert "ray job stop out.run-1" in caught.value.fix


class Client:
    """A job server that says what it is told to."""

    def __init__(self, ends=(), logs=(), taken=0):
        self.jobs, self._ends, self._logs, self._taken = [], list(ends), list(logs), taken

    def get_address(self):
        return "http://head:8265"

    def list_jobs(self):
        return self.jobs

    def submit_job(self, entrypoint, submission_id, runtime_env, metadata):
        self.sent = SimpleNamespace(entrypoint=entrypoint, runtime_env=runtime_env, metadata=metadata)
        if self._taken:
            self._taken -= 1
            self.jobs.append(job(submission_id, "RUNNING", entrypoint, metadata["surveyproc_output"] + "x"))
            raise RuntimeError(f"Request failed: Job with submission_id {submission_id} already exists.")

    async def tail_job_logs(self, submission_id):
        for text in self._logs.pop(0):
            if text is None:
                raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
            yield text

    def get_job_info(self, submission_id):
        status, code, message = self._ends.pop(0)
        return job(submission_id, status, driver_exit_code=code, message=message)


def test_a_number_that_somebody_else_took_is_skipped(tmp_path):
    client = Client(taken=2)
    found = jobs.submit(client, ["run"], OUTPUT, tmp_path, "python")
    assert (found.id, found.attached) == ("out.run-3", False)


def test_nothing_secret_and_no_installer_goes_along(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    client = Client()
    words = run_words("s3://b/in.cat", OUTPUT, ["gz2"], ["--accept-code"], ["engine.views=1"])
    jobs.submit(client, words, OUTPUT, tmp_path, "/opt/py thon")
    sent = client.sent
    assert shlex.split(sent.entrypoint) == [
        "/opt/py thon", "-m", "surveyproc.cli.main", "run", "--input", "s3://b/in.cat", "--output", OUTPUT,
        "--bundle", "gz2", "--accept-code", "cluster=address", "cluster.address=auto", "engine.views=1",
    ]  # fmt: skip
    assert set(sent.runtime_env) == {"py_modules", "env_vars"}
    assert "s3cr3t" not in json.dumps(vars(sent))


@pytest.mark.parametrize(
    ("end", "code"),
    [(("SUCCEEDED", 0, ""), 0), (("FAILED", 4, "x"), 4), (("FAILED", 2, "x"), 2), (("FAILED", 1, "x"), 1)],
)
def test_the_drivers_exit_code_is_ours(end, code):
    written = []
    status, found = follow(Client([end], [["one\n", "two\n"]]), "out.run-1", written.append)
    assert (status, found, "".join(written)) == (end[0], code, "one\ntwo\n")


@pytest.mark.parametrize(
    ("end", "kind", "says"),
    [
        (("STOPPED", None, ""), PartialError, "the job was stopped"),
        (("FAILED", -9, ""), PartialError, "signal 9"),
        (("FAILED", 137, ""), PartialError, "signal 9"),
        (("FAILED", 130, ""), PartialError, "signal 2"),
        (("FAILED", None, "x\nthe node died\n"), ResourceError, "the node died"),
        (("FAILED", 127, "sh: python: not found"), ResourceError, "could not start the interpreter"),
    ],
)
def test_a_job_that_was_ended_says_what_to_do(end, kind, says):
    with pytest.raises(kind, match=says):
        follow(Client([end], [[]]), "out.run-1", print)


def test_a_lost_connection_repeats_nothing_of_the_log(monkeypatch):
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0)
    logs = [["one\n", "tw", None], [None], ["one\ntwo\n", "three\n"]]
    ends = [("RUNNING", None, ""), ("RUNNING", None, ""), ("SUCCEEDED", 0, "")]
    written = []
    assert follow(Client(ends, logs), "out.run-1", written.append) == ("SUCCEEDED", 0)
    assert "".join(written) == "one\ntwo\nthree\n"


def test_what_is_shipped_runs_alone_and_is_the_same_code(bundle, tmp_path):
    with staged([str(bundle), "gz2", "s3://b/other"]) as (package, names):
        assert names[1:] == ["gz2", "s3://b/other"]
        assert names[0].startswith("toy-")
        assert not list(package.rglob("__pycache__"))
        script = (
            "import surveyproc.runs.version as v; from surveyproc.models.bundle import open_bundle; "
            "from surveyproc.config.run import load_run_config; load_run_config(); "
            f"print(v.PACKAGE, v.code_version(), v.git_commit(), open_bundle({names[0]!r}).sha256)"
        )
        env = os.environ | {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
        ran = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
        )
        digest = json.loads((bundle / "model.json").read_text())["weights_sha256"]
        assert ran.stdout.split() == [str(package), code_version(), str(git_commit()), digest]


def test_too_large_a_bundle_is_not_shipped(bundle, monkeypatch):
    monkeypatch.setattr("surveyproc.distributed.shipping.MOST_SHIPPED_MB", 1)
    with pytest.raises(UsageError, match="more than the 1 MB"), staged([str(bundle)]):
        pass


BUCKETS = ["--input", "s3://b/in.cat", "--output", "s3://b/out.run"]
CLUSTER = ["--address", "http://127.0.0.1:9"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (BUCKETS, 2, "--address must be given"),
        (CLUSTER, 2, "--input and --output must be given"),
        ([*CLUSTER, "--input", "in.cat", *BUCKETS[2:]], 2, "a local path, which the cluster cannot see"),
        ([*CLUSTER, "--input", "s3://key:word@b/in.cat", *BUCKETS[2:]], 2, "holds a password"),
        ([*CLUSTER, *BUCKETS, "--storage", "secret=word"], 2, "submit sends no credentials"),
        ([*CLUSTER, *BUCKETS, "cluster=local"], 2, "submit runs on the cluster that it submits to"),
        ([*CLUSTER, *BUCKETS, "engine.viewz=1"], 2, "Did you mean 'engine.views'?"),
        (["--address", "head:6379", *BUCKETS], 2, "the address must be that of the cluster's dashboard"),
        ([*CLUSTER, *BUCKETS], 5, "does not answer as it should"),
    ],
)
def test_mistakes_are_told_before_anything_is_sent(words, code, says, capsys, monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert main(["submit", *words]) == code
    err = capsys.readouterr().err
    assert says in err
    assert "word" not in err.replace("password", "")
    assert "Traceback" not in err
    assert configured() == {}


def test_the_entry_point_of_ray_job_submit_runs_from_a_copy_of_the_checkout(tmp_path):
    """Ray ships the working directory without what .rayignore names."""
    from ray._private.runtime_env.packaging import create_package

    create_package(str(REPOSITORY), tmp_path / "shipped.zip", include_gitignore=True)
    subprocess.run([sys.executable, "-m", "zipfile", "-e", "shipped.zip", "wd"], cwd=tmp_path, check=True)
    shipped = {p.name for p in (tmp_path / "wd").iterdir()}
    assert {"surveyproc", "conf", "jobs"} <= shipped
    assert not shipped & {".git", ".venv", "tests", "docs", "infra"}
    ran = subprocess.run(
        [
            sys.executable,
            "jobs/run.py",
            "--input",
            str(tmp_path / "absent.cat"),
            "--output",
            "out.run",
            "cluster=none",
        ],
        cwd=tmp_path / "wd",
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 3, ran.stderr
    assert "there is no such catalog" in ran.stderr
