"""A cluster of two nodes that share nothing but a network and a bucket: head without CPUs, worker without the code.

Every machine, the client included, sees neither the tests' folders nor each other's, and can write only its own
scratch: a local path that leaks from one to another is missing there, or cannot be written.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from drive import REPOSITORY, assert_same_tables, assert_sound, end_session, run_here, tables_of
from stores import BUCKET, s3_server
from toys import toy_bundle, toy_catalog
from twonodes import CODE, Network, RayNodes, available

from surveyproc.distributed.shipping import staged

pytestmark = [
    pytest.mark.skipif(not available(), reason="needs the right to make namespaces and to mount (root)"),
    pytest.mark.timeout(600),
]
SETTINGS = ["engine.batch_size=16", "engine.views=2", "engine.shard_rows=10"]
OURS = {"PYTHONPATH": os.pathsep.join(str(REPOSITORY / name) for name in (".", "tests", "tests/chaos"))}


def make_survey(folder: Path, rows: int) -> SimpleNamespace:
    """A catalog, a bundle, and the tables of an undisturbed run in one process."""
    ids = list(range(rows))
    ids[rows - 5] = ids[4]
    catalog, bundle = (
        toy_catalog(folder / "in.cat", rows, ids=ids, positions=True),
        toy_bundle(folder / "toy"),
    )
    run_here(catalog, folder / "undisturbed.run", bundle)
    expected = tables_of(folder / "undisturbed.run")
    return SimpleNamespace(folder=folder, catalog=catalog, bundle=bundle, rows=rows, expected=expected)


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return make_survey(tmp_path_factory.mktemp("survey"), rows=60)


@pytest.fixture(scope="module")
def cluster(survey, tmp_path_factory):
    """Two nodes and a bucket that holds the catalog; the nodes have no copy of this package."""
    scratch, head_only, shared = (tmp_path_factory.mktemp(n) for n in ("cluster", "head-only", "shared"))
    hide = [survey.folder, head_only, shared, *CODE]
    with ExitStack() as stack:
        network, s3 = stack.enter_context(network_with_bucket(survey))
        nodes = RayNodes(network, scratch, env=s3.env, hide=hide, head_writes=[head_only], all_write=[shared])
        stack.enter_context(nodes)
        yield SimpleNamespace(
            network=network, nodes=nodes, s3=s3, survey=survey, head_only=head_only, shared=shared
        )


@contextmanager
def network_with_bucket(survey):
    """A network, and in it a bucket with the catalog and the bundle."""
    with Network() as network, ExitStack() as stack:
        with network.inside():
            server = stack.enter_context(s3_server())
        s3 = Bucket(network, server)
        s3.upload(survey.catalog, "in.cat")
        s3.upload(survey.bundle, "toy")
        yield network, s3


class Bucket:
    """The bucket inside the network, read and written from this thread."""

    def __init__(self, network: Network, server) -> None:
        import boto3

        self._network, self.env = network, server.env
        self.uri = f"s3://{BUCKET}"
        self._client = boto3.client(
            "s3",
            endpoint_url=server.endpoint,
            aws_access_key_id=server.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=server.env["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
        )

    def upload(self, folder: Path, key: str) -> None:
        with self._network.inside():
            for file in folder.rglob("*"):
                if file.is_file():
                    body = file.read_bytes()
                    self._client.put_object(Bucket=BUCKET, Key=f"{key}/{file.relative_to(folder)}", Body=body)

    def keys(self, prefix: str) -> list[str]:
        with self._network.inside():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
            return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def download(self, prefix: str, folder: Path) -> Path:
        for key in self.keys(prefix):
            target = folder / key
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._network.inside():
                target.write_bytes(self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
        return folder / prefix


def submit(cluster, run: str, *words: str, folder: str | None = None, token: bool = True):
    """``surveyproc submit`` on a machine outside the cluster: it has this package and a bundle, and no data."""
    folder = folder or cluster.s3.uri
    flags = ["--address", cluster.nodes.url, "--input", f"{folder}/in.cat", "--output", f"{folder}/{run}"]
    flags += ["--bundle", str(cluster.survey.bundle), *SETTINGS]
    return cluster.network.jailed(
        ["python", "-m", "surveyproc.cli.main", "submit", *flags, *words],
        env=OURS | (cluster.nodes.client_env() if token else {}),
        hide=[cluster.survey.catalog, cluster.survey.folder / "undisturbed.run"],
        copy=[cluster.nodes.token],
    )


def assert_same_run(cluster, run: str, folder: Path) -> None:
    copy = cluster.s3.download(run, folder)
    assert_same_tables(tables_of(copy), cluster.survey.expected)
    assert_sound(copy)


def test_a_submitted_run_reads_and_writes_buckets_only(cluster, tmp_path):
    done = submit(cluster, "submitted.run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "submitted submitted.run-1" in done.stderr
    assert "59 rows + 1 rejects" in done.stdout
    assert_same_run(cluster, "submitted.run", tmp_path)

    record = json.loads((tmp_path / "submitted.run" / "run.json").read_text())
    assert record["config"]["cluster"]["kind"] == "address"
    text = (tmp_path / "submitted.run" / "run.json").read_text()
    assert cluster.s3.env["AWS_SECRET_ACCESS_KEY"] not in text

    counted = drive_from_head(
        cluster, "sql", f"{cluster.s3.uri}/submitted.run", "SELECT count(*) AS n FROM embeddings", "--json"
    )
    assert json.loads(counted.stdout) == [{"n": cluster.survey.expected["embeddings"].num_rows}], (
        "sql needs the bucket alone: there is no other network here"
    )

    for node in (cluster.nodes.head, *cluster.nodes.workers):
        assert node.written() == [], f"{node.name} has files that nobody asked for"


def test_a_client_without_the_token_is_told_how_to_give_it(cluster):
    refused = submit(cluster, "token.run", token=False)
    assert refused.returncode == 5, refused.stderr
    assert "RAY_AUTH_TOKEN_PATH" in refused.stderr
    assert "Traceback" not in refused.stderr


def drive_from_head(cluster, *words: str):
    """``surveyproc`` on the head, from a copy of the package that only the head has."""
    code = cluster.head_only / "code"
    if not code.exists():
        with staged([]) as (package, _):
            shutil.copytree(package, code / package.name)
    return cluster.nodes.head.run(
        ["python", "-m", "surveyproc.cli.main", *words], env={"PYTHONPATH": str(code)}
    )


def test_local_paths_of_the_driver_are_refused_before_anything_is_written(cluster):
    shutil.copytree(cluster.survey.catalog, cluster.head_only / "in.cat", dirs_exist_ok=True)
    flags = ["--input", str(cluster.head_only / "in.cat"), "--output", str(cluster.head_only / "local.run")]
    refused = drive_from_head(cluster, "run", *flags, "--force-domain", f"cluster={cluster.nodes.gcs}")
    assert refused.returncode == 2, refused.stderr
    assert "a local path, and the cluster has 2 nodes" in refused.stderr
    assert not (cluster.head_only / "local.run").exists()


@pytest.mark.slow
def test_a_node_without_the_package_is_named(cluster):
    flags = [
        "--input",
        f"{cluster.s3.uri}/in.cat",
        "--output",
        f"{cluster.s3.uri}/bare.run",
        "--force-domain",
    ]
    refused = drive_from_head(cluster, "run", *flags, f"cluster={cluster.nodes.gcs}")
    assert refused.returncode == 5, refused.stderr
    assert "a node cannot run surveyproc: No module named 'surveyproc" in refused.stderr
    assert "where: node worker-1" in refused.stderr
    assert not cluster.s3.keys("bare.run")


@pytest.mark.slow
def test_a_folder_that_is_not_shared_after_all_fails_clearly(cluster):
    shutil.copytree(cluster.survey.catalog, cluster.head_only / "in.cat", dirs_exist_ok=True)
    failed = submit(cluster, "leak.run", "--shared-filesystem", folder=str(cluster.head_only))
    assert failed.returncode == 3, failed.stdout + failed.stderr
    assert "(node worker-1)" in failed.stdout
    assert "Traceback" not in failed.stdout
    assert cluster.nodes.workers[0].written() == []


@pytest.mark.slow
def test_a_folder_that_is_shared_serves_as_well_as_a_bucket(cluster):
    shutil.copytree(cluster.survey.catalog, cluster.shared / "in.cat")
    done = submit(cluster, "shared.run", "--shared-filesystem", folder=str(cluster.shared))
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_tables(tables_of(cluster.shared / "shared.run"), cluster.survey.expected)
    assert_sound(cluster.shared / "shared.run")


@pytest.mark.slow
def test_the_drivers_exit_code_and_message_come_back(cluster):
    refused = submit(cluster, "refused.run", "--json", "cluster.actors=3", "cluster.wait_seconds=1")
    assert refused.returncode == 5, refused.stdout + refused.stderr
    assert "waiting up to 1 s for room for 3 engine actors" in refused.stderr
    assert "3 engine actors of 0.9 CPUs do not fit" in refused.stderr
    assert "use cluster.actors=2" in refused.stderr
    result = {"submission_id": "refused.run-1", "attached": False, "status": "FAILED", "exit_code": 5}
    assert json.loads(refused.stdout) == result
    assert not cluster.s3.keys("refused.run")


@pytest.mark.slow
def test_the_same_command_attaches_to_a_job_that_runs_and_refuses_other_settings(cluster, tmp_path):
    first = submit(cluster, "attached.run", "--no-wait")
    assert "ray job stop" in first.stdout, first.stderr
    other = submit(cluster, "attached.run", "engine.shard_seconds=5")
    assert other.returncode == 2, other.stdout + other.stderr
    assert "is at this run with other settings" in other.stderr
    second = submit(cluster, "attached.run")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "attached to attached.run-1" in second.stderr
    assert_same_run(cluster, "attached.run", tmp_path)
    third = submit(cluster, "attached.run")
    assert third.returncode == 0, third.stdout + third.stderr
    assert "submitted attached.run-2" in third.stderr
    assert "nothing to do" in third.stdout


@pytest.mark.slow
def test_ray_job_submit_of_the_checkout_does_the_same(cluster, tmp_path):
    words = ["--input", f"{cluster.s3.uri}/in.cat", "--output", f"{cluster.s3.uri}/plain.run"]
    words += ["--bundle", f"{cluster.s3.uri}/toy", *SETTINGS]
    ray = ["ray", "job", "submit", "--address", cluster.nodes.url, "--working-dir", str(REPOSITORY), "--"]
    done = cluster.network.jailed(
        [*ray, "python", "jobs/run.py", *words],
        env=cluster.nodes.client_env(),
        hide=[cluster.survey.folder],
        copy=[cluster.nodes.token],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(cluster, "plain.run", tmp_path)


@pytest.mark.slow
@pytest.mark.chaos
def test_a_node_that_dies_and_is_replaced_costs_nothing(tmp_path_factory, tmp_path):
    """The run waits for a second node; the first is killed, all of it; a third joins; the driver goes on."""
    survey = make_survey(tmp_path_factory.mktemp("long-survey"), rows=200)
    slow = {"SURVEYPROC_STEP_HOOK": "meddling:slow", "SURVEYPROC_MEDDLE_STEP": '["commit.ready", "shard-"]'}
    code = {"PYTHONPATH": os.pathsep.join(str(REPOSITORY / name) for name in (".", "tests/distributed"))}
    with ExitStack() as stack:
        network, s3 = stack.enter_context(network_with_bucket(survey))
        nodes = RayNodes(
            network,
            tmp_path_factory.mktemp("dying"),
            workers=1,
            cpus=1,
            env=s3.env | slow | code,
            hide=[survey.folder],
        )
        stack.enter_context(nodes)
        words = ["run", "--input", f"{s3.uri}/in.cat", "--output", f"{s3.uri}/dying.run"]
        words += ["--bundle", f"{s3.uri}/toy", *SETTINGS, f"cluster={nodes.gcs}"]
        words += ["cluster.actors=2", "cluster.wait_seconds=300"]
        driver = nodes.head.start(["python", "-m", "surveyproc.cli.main", *words])
        stack.callback(end_session, driver.pid)
        told = next((line for line in driver.stderr if line.startswith("waiting")), "")
        assert told == "waiting up to 300 s for room for 2 engine actors of 0.9 CPUs\n"
        nodes.add_worker()
        until = time.monotonic() + 180
        while len(s3.keys("dying.run/_commits/")) < 4:
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < until
            time.sleep(0.2)
        nodes.workers[0].kill()
        assert len(s3.keys("dying.run/_commits/")) < 20, "it was over before the node died"
        nodes.add_worker(wait=False)
        out, err = driver.communicate(timeout=240)
        assert driver.returncode == 0, out + err
        copy = s3.download("dying.run", tmp_path)
    assert_same_tables(tables_of(copy), survey.expected)
    assert_sound(copy)
