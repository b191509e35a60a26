"""A training moves from this process to two Ray workers and back, loses a worker, and ends as planned."""

import json
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from toys import toy_catalog

from surveyproc.config.run import ClusterConfig, WorkersConfig
from surveyproc.distributed.preflight import Demand, Node
from surveyproc.distributed.rays import ray_cluster
from surveyproc.distributed.training import require_workers, train_on_ray, workers_for
from surveyproc.errors import ResourceError
from surveyproc.models.bundle import open_bundle
from surveyproc.training.checkpoint import checkpoints, read_tensors
from surveyproc.training.job import Request, plan, train_bundle
from surveyproc.training.recipe import build_recipe
from surveyproc.votes import load_schema

ROWS, BATCH, EVERY = 400, 32, 2
EPOCHS = 80  # a dozen times what the kills and stops below take: they do not race the end of the training
CLUSTER = ClusterConfig("local", None, None, 0.6, None, 128, False, 0)
WORKERS = WorkersConfig(num_workers=2, min_workers=1, max_failures=3)


@pytest.fixture(scope="module")
def cluster():
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    with ray_cluster(CLUSTER, verbose=False) as ray:
        yield ray


@pytest.fixture(scope="module")
def request_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray-training")
    catalog = toy_catalog(folder / "toy.cat", ROWS, group_rows=64)
    schema = load_schema("galaxy-challenge")
    rng = np.random.default_rng(0)
    fractions = [rng.dirichlet(np.ones(len(q.answers)), ROWS) for q in schema.questions]
    joint = schema.joint(np.concatenate(fractions, axis=1))
    header = ",".join(["GalaxyID", *(schema.labels[c] for c in schema.columns)])
    lines = [",".join([str(1000 + i), *(f"{v:.6f}" for v in row)]) for i, row in enumerate(joint)]
    (folder / "labels.csv").write_text("\n".join([header, *lines]) + "\n")
    settings = {
        "encoder_arguments": {"channels": [8, 8, 8, 8]},
        "size": 16,
        "batch": BATCH,
        "epochs": EPOCHS,
        "validate_every": EVERY,
        "precision": "fp32",
        "device": "cpu",
        "keep": "best",
        "balance": "inverse",
        "views": 1,
        "draws": 1,
    }
    recipe, problems = build_recipe(settings)
    assert not problems
    return Request(
        str(catalog), str(folder / "labels.csv"), str(folder / "out"), recipe, settings, citation=["none"]
    )


def images_of(folder: Path) -> int:
    found = checkpoints(folder)
    return int(found[-1].stem.partition("-")[2]) if found else 0


def workers_of_this_process() -> list[int]:
    """Train workers whose raylet is a child of this process."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                names[int(entry.name)] = (entry / "cmdline").read_bytes()
            except OSError:
                continue
    mine = [p for p, name in names.items() if name.startswith(b"ray::RayTrainWorker")]
    return [p for p in mine if parents.get(parents.get(p, 0)) == os.getpid()]


def when(condition, action):
    """Watch in a thread until the condition holds, then act once."""

    def watch():
        while not condition():
            time.sleep(0.01)
        done.append(action())

    done: list = []
    threading.Thread(target=watch, daemon=True).start()
    return done


def metrics(folder: Path, name: str) -> list[int]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["images_seen"] for line in lines if name in line]


@pytest.mark.slow
def test_stops_and_a_lost_worker_change_neither_images_seen_nor_the_history(cluster, request_of):
    folder = Path(f"{request_of.output}.train")
    training = plan(request_of)
    go = partial(train_bundle, training, trainer=partial(train_on_ray, workers=WORKERS, cluster=CLUSTER))
    between = EVERY * len(training.joined.rows["train"])

    def kill():
        os.kill(workers_of_this_process()[0], signal.SIGKILL)
        return images_of(folder)

    def terminate():
        os.kill(os.getpid(), signal.SIGTERM)
        return images_of(folder)

    begun = when(lambda: images_of(folder) > 0, terminate)
    with pytest.raises(KeyboardInterrupt):
        train_bundle(training)
    killed = when(lambda: images_of(folder) > begun[0] + between, kill)
    stopped = when(lambda: killed and images_of(folder) > killed[0] + between, terminate)
    with pytest.raises(KeyboardInterrupt):
        go()
    rows = len(training.joined.rows["train"])
    planned = -(-EPOCHS * rows // BATCH) * BATCH
    assert 0 < begun[0] < killed[0] < stopped[0] <= images_of(folder) < planned
    result = train_bundle(training)
    assert result.log["images_seen"] == planned
    steps = range(1, planned // BATCH + 1)
    looks = [s * BATCH for s in steps if s * BATCH // (EVERY * rows) > (s - 1) * BATCH // (EVERY * rows)]
    looks += [] if planned in looks else [planned]
    assert metrics(folder, "validation/rmse") == looks
    assert metrics(folder, "train/loss") == sorted({*looks, *(s * BATCH for s in steps if s % 50 == 0)})
    assert [look["images_seen"] for look in result.log["validation"]] == looks
    best = checkpoints(folder, "best")[-1]
    assert best.stem.endswith(str(result.log["best"]["images_seen"]))
    shipped = open_bundle(request_of.output).tensors
    for name, tensor in read_tensors(best)[0].items():
        if name == "concentration_scale":
            continue  # calibration's, after the training
        np.testing.assert_array_equal(tensor.half().float().numpy(), shipped[name].float().numpy())
    assert go().nothing_to_do


def test_workers_that_could_never_run_are_refused_with_the_fix():
    node = Node("a", "a", cpus=4, gpus=0, memory=0)
    require_workers([node, node], Demand(8, 0.9))
    with pytest.raises(ResourceError, match=r"room for 8[\s\S]*num_workers=8"):
        require_workers([node, node], Demand(9, 0.9))
    with pytest.raises(ResourceError, match=r"nothing of the 8 CPUs[\s\S]*cpus_per_actor=0.9"):
        require_workers([node, node], Demand(8, 1.0))
    with pytest.raises(ResourceError, match="room for 0"):
        require_workers([node, node], Demand(1, 0.9, gpus=1))


def test_an_elastic_group_takes_the_room_there_is_and_no_less_than_its_least():
    node, one = Node("a", "a", cpus=2, gpus=0, memory=0), Demand(1, 0.9)
    assert workers_for([node], one, WorkersConfig(4, 1, 3)) == 2
    assert workers_for([node, node], one, WorkersConfig(4, 1, 3)) == 4
    with pytest.raises(ResourceError, match="room for 2"):
        workers_for([node], one, WorkersConfig(4, 3, 3))
    with pytest.raises(ResourceError, match="room for 2"):
        workers_for([node], one, WorkersConfig(4, None, 3))
