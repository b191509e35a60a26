"""Submit a run to a cluster as a Ray job, or attach to the one that is at it, and follow it to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surveyproc.errors import PartialError, ResourceError, UsageError

OUTPUT = "surveyproc_output"
GOING = ("PENDING", "RUNNING")
TRIES = 10
POLL_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
# No pip or uv: the job runs in the environment that the cluster has, torch included.
ENVIRONMENT = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}


@dataclass(frozen=True)
class Submission:
    """A job on the cluster; ``attached`` when it had been submitted before."""

    id: str
    attached: bool


def run_words(
    input_uri: str, output_uri: str, bundles: Sequence[str], flags: Sequence[str], overrides: Sequence[str]
) -> list[str]:
    """Put together the ``surveyproc run`` that a job on the cluster executes."""
    words = ["run", "--input", input_uri, "--output", output_uri]
    words += ["--bundle", *bundles] if bundles else []
    return [*words, *flags, "cluster=address", "cluster.address=auto", *overrides]


def job_name(output_uri: str) -> str:
    """Name of a run's jobs: the last part of its address, of letters that are safe in URLs and file names."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", output_uri.rstrip("/").rsplit("/", 1)[-1]).strip("-.")
    return name or "run"


def choose_submission(jobs: Iterable[Any], name: str, output_uri: str, entrypoint: str) -> Submission:
    """Choose between attaching to a job of this run and submitting the next one.

    Ray refuses an id that was used before, also one that failed: the ids are ``<name>-<n>``.

    Parameters
    ----------
    jobs : iterable of ray.job_submission.JobDetails
        All jobs of the cluster.
    name : str
        `job_name` of the run.
    output_uri, entrypoint : str
        Of the job to be submitted.

    Returns
    -------
    Submission
        With ``attached`` true for a job that is pending or running.

    Raises
    ------
    UsageError
        When a job with other settings is at the same run.
    """
    pattern = re.compile(re.escape(name) + r"-(\d+)")
    numbered = [(int(m[1]), job) for job in jobs if (m := pattern.fullmatch(job.submission_id or ""))]
    for number, job in sorted(numbered, key=lambda pair: -pair[0]):
        if job.status not in GOING or (job.metadata or {}).get(OUTPUT) != output_uri:
            continue
        if job.entrypoint != entrypoint:
            raise UsageError(
                f"the job {name}-{number} is at this run with other settings:\n    {job.entrypoint}",
                where=output_uri,
                fix=f"give the same settings to attach to it, or end it first: ray job stop {name}-{number}",
            )
        return Submission(f"{name}-{number}", True)
    return Submission(f"{name}-{max((n for n, _ in numbered), default=0) + 1}", False)


def submit(client: Any, words: Sequence[str], output_uri: str, package: Path, python: str) -> Submission:
    """Submit ``surveyproc WORDS``, or find the job that is already at it.

    Parameters
    ----------
    client : ray.job_submission.JobSubmissionClient
    words : sequence of str
        Of `run_words`.
    output_uri : str
    package : path
        What `shipping.staged` wrote; shipped unless the cluster has the same files from before.
    python : str
        The interpreter on the cluster.
    """
    entrypoint = shlex.join([python, "-m", "surveyproc.cli.main", *words])
    runtime_env = {"py_modules": [str(package)], "env_vars": ENVIRONMENT}
    with explain(client.get_address()):
        for left in reversed(range(TRIES)):
            chosen = choose_submission(client.list_jobs(), job_name(output_uri), output_uri, entrypoint)
            if chosen.attached:
                return chosen
            try:
                client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=chosen.id,
                    runtime_env=runtime_env,
                    metadata={OUTPUT: output_uri},
                )
            except RuntimeError as error:
                if "already exists" in str(error) and left:
                    continue  # somebody took the number in between; what they submitted may be this run
                raise
            break
    return chosen


def follow(client: Any, submission_id: str, write: Callable[[str], None]) -> tuple[str, int]:
    """Pass on a job's log until it ends.

    Returns
    -------
    str
        ``SUCCEEDED`` or ``FAILED``.
    int
        Exit code of the driver.

    Raises
    ------
    PartialError
        When the job was stopped or its driver was killed; what it committed is kept.
    ResourceError
        When the cluster could not start it, or cannot be reached any more.
    """
    import aiohttp

    written = 0

    async def tail() -> None:
        nonlocal written
        seen = 0
        async for text in client.tail_job_logs(submission_id):
            new = text[max(0, written - seen) :]  # after a lost connection the log comes from its beginning
            seen += len(text)
            written = max(written, seen)
            write(new)

    while True:
        try:
            asyncio.run(tail())
        except (RuntimeError, OSError, aiohttp.ClientError):
            time.sleep(POLL_SECONDS)
        job = _patiently(client, submission_id)
        if job.status not in GOING:
            return job.status.value, _exit_code(job, submission_id)
        time.sleep(POLL_SECONDS)


def _patiently(client: Any, submission_id: str) -> Any:
    """What the job server says of a job; it may be away for a minute."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with explain(client.get_address()):
                return client.get_job_info(submission_id)
        except ResourceError:
            if time.monotonic() > until:
                raise
            time.sleep(POLL_SECONDS)


def _exit_code(job: Any, submission_id: str) -> int:
    again = "give the same command again: what was committed is kept"
    code = job.driver_exit_code
    if job.status == "STOPPED":
        raise PartialError("the job was stopped", where=submission_id, fix=again)
    if code is None and job.status == "FAILED":
        lines = [line for line in str(job.message).splitlines() if line.strip()]
        raise ResourceError(
            f"the cluster lost the job or could not start it: {lines[-1].strip()}",
            where=submission_id,
            fix=f"see `ray job logs {submission_id}`; {again}",
        )
    if code in (126, 127):
        raise ResourceError(
            "the cluster's shell could not start the interpreter",
            where=job.entrypoint.split()[0],
            fix="name it by its path there: --python /path/to/python",
        )
    if code is not None and (code < 0 or code > 128):
        number = -code if code < 0 else code - 128
        raise PartialError(f"the driver was ended by signal {number}", where=submission_id, fix=again)
    return code or 0


@contextmanager
def explain(address: str) -> Iterator[None]:
    """Turn what goes wrong between here and the cluster into three lines."""
    import ray

    try:
        yield
    except ray.exceptions.AuthenticationError as error:
        raise ResourceError(
            "the cluster refused the token, or wants one",
            where=address,
            fix="export RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE, a file with the cluster's token",
        ) from error
    except (OSError, RuntimeError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise ResourceError(
            f"the cluster's job server does not answer as it should: {lines[-1].strip()}",
            where=address,
            fix="give the address of the dashboard, http://HEAD:8265; a port-forward or tunnel may be needed",
        ) from error


def connect(address: str) -> Any:
    """Connect to a cluster's job server.

    Raises
    ------
    UsageError, ResourceError
    """
    if not re.match(r"https?://[^/]", address):
        raise UsageError(
            "the address must be that of the cluster's dashboard",
            where=f"--address {address}",
            fix="give http://HEAD:8265",
        )
    from ray.job_submission import JobSubmissionClient

    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    # Ray prefers these to the address it is given.
    overriding = {name: os.environ.pop(name, None) for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")}
    try:
        with explain(address):
            return JobSubmissionClient(address)
    finally:
        os.environ.update({name: value for name, value in overriding.items() if value is not None})
