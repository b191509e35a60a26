"""A request that would hang on a cluster is refused before anything starts, with what to ask for instead."""

from __future__ import annotations

import pytest

from surveyproc.distributed.preflight import (
    GB,
    Demand,
    Node,
    absolute,
    living,
    require_reachable,
    require_room,
    require_shared_memory,
    usual_actors,
)
from surveyproc.errors import ResourceError, UsageError


def cluster(*cpus: float, gpus: float = 0, memory: float = 8) -> list[Node]:
    return [Node(f"id{n}", f"node{n}", c, gpus, memory * GB) for n, c in enumerate(cpus)]


def refusal(nodes: list[Node], demand: Demand) -> ResourceError:
    with pytest.raises(ResourceError) as caught:
        require_room(nodes, demand)
    assert caught.value.exit_code == 5
    return caught.value


@pytest.mark.parametrize(
    ("nodes", "demand"),
    [
        (cluster(2), Demand(2, 0.9)),
        (cluster(0, 2), Demand(2, 0.9)),
        (cluster(2, 2), Demand(4, 0.9)),
        (cluster(4, 4), Demand(2, 3)),
        (cluster(0.3), Demand(2, 0.1)),
        (cluster(8, gpus=2), Demand(2, 0.9, gpus=1)),
        (cluster(0, 8, 8), Demand(4, 0.9, memory=4 * GB)),
    ],
)
def test_what_fits_is_let_through(nodes, demand):
    require_room(nodes, demand)


@pytest.mark.parametrize(
    ("nodes", "demand", "says", "fix"),
    [
        (
            cluster(2),
            Demand(2, 1),
            "leave nothing of the 2 CPUs",
            "cluster.actors=2 cluster.cpus_per_actor=0.9",
        ),
        (cluster(2, 2), Demand(1, 3), "room for 0", "ask for less for each actor"),
        (cluster(4, 4), Demand(3, 3), "room for 2", "use cluster.actors=2"),
        (cluster(2, 2), Demand(5, 0.9), "room for 4", "use cluster.actors=4"),
        (cluster(0), Demand(1, 0.9), "room for 0", "cluster.wait_seconds"),
        ([], Demand(1, 0.9), "a cluster without nodes", "cluster.wait_seconds"),
        (cluster(8), Demand(1, 0.9, gpus=1), "has 0 GPUs", "engine.device=cpu"),
        (cluster(8, gpus=1), Demand(2, 0.9, gpus=1), "has 1 GPUs", "use cluster.actors=1"),
        (cluster(1, 16, gpus=4), Demand(6, 1, gpus=1), "room for 5", "use cluster.actors=5"),
        (cluster(8), Demand(3, 0.9, memory=4 * GB), "room for 2", "use cluster.actors=2"),
        (cluster(8), Demand(1, 0.9, memory=9 * GB), "room for 0", "ask for less"),
    ],
)
def test_what_would_hang_is_refused_with_the_fix(nodes, demand, says, fix):
    error = refusal(nodes, demand)
    assert says in error.what
    assert fix in error.fix


def test_the_advice_is_never_refused_itself():
    for cpus in (1, 2, 3, 7.5, 64):
        for actors in (1, 2, 5, 64):
            nodes = cluster(cpus, cpus)
            try:
                require_room(nodes, Demand(actors, 1))
            except ResourceError as error:
                settings = dict(w.split("=") for w in error.fix.replace(",", " ").split() if "=" in w)
                each = float(settings.get("cluster.cpus_per_actor", 1))
                advised = Demand(int(settings["cluster.actors"]), each)
                while (
                    each == 1 and advised.actors * each >= 2 * cpus
                ):  # the second advice, of the next refusal
                    second = refusal(nodes, advised)
                    settings = dict(w.split("=") for w in second.fix.replace(",", " ").split() if "=" in w)
                    each = float(settings["cluster.cpus_per_actor"])
                    advised = Demand(int(settings["cluster.actors"]), each)
                require_room(nodes, advised)


def test_dead_nodes_do_not_count():
    ray_nodes = [
        {
            "Alive": True,
            "NodeID": "a",
            "NodeManagerHostname": "one",
            "Resources": {"CPU": 2.0, "memory": 1e9},
        },
        {"Alive": False, "NodeID": "b", "NodeManagerHostname": "two", "Resources": {}},
        {"Alive": True, "NodeID": "c", "NodeManagerHostname": "head", "Resources": {"memory": 1e9}},
    ]
    assert living(ray_nodes) == [Node("a", "one", 2.0, 0.0, 1e9), Node("c", "head", 0.0, 0.0, 1e9)]


@pytest.mark.parametrize(
    ("nodes", "gpu", "threads", "expected"),
    [
        (cluster(2), False, 1, 2),
        (cluster(0, 2, 4), False, 1, 6),
        (cluster(16), False, 1, 16),
        (cluster(16), False, 4, 4),
        (cluster(2), False, 4, 1),
        (cluster(8, 8, gpus=2), True, 1, 4),
        (cluster(1, gpus=8), True, 1, 1),
        (cluster(0), False, 1, 0),
    ],
)
def test_one_engine_for_each_core_or_gpu(nodes, gpu, threads, expected):
    assert usual_actors(nodes, 0.9, gpu, threads) == expected
    if expected:
        require_room(nodes, Demand(expected, 0.9, int(gpu)))


def test_an_object_store_larger_than_the_shared_memory_is_refused(tmp_path):
    require_shared_memory(80, str(tmp_path))
    with pytest.raises(ResourceError, match="does not fit") as caught:
        require_shared_memory(10**9, str(tmp_path))
    assert "--shm-size" in caught.value.fix
    with pytest.raises(ResourceError, match="0 MB that are free"):
        require_shared_memory(80, str(tmp_path / "absent"))


@pytest.mark.parametrize("uri", ["out.run", "/data/out.run", "file:///data/out.run"])
def test_local_paths_are_refused_on_several_nodes_unless_shared(uri):
    require_reachable([("--output", uri)], nodes=1, shared=False)
    require_reachable([("--output", uri)], nodes=2, shared=True)
    with pytest.raises(UsageError, match="the cluster has 2 nodes") as caught:
        require_reachable([("--input", "s3://b/x"), ("--output", uri)], nodes=2, shared=False)
    assert uri in caught.value.where
    assert "cluster.shared_filesystem=true" in caught.value.fix


@pytest.mark.parametrize("shared", [False, True])
def test_the_memory_of_a_process_is_no_place_for_a_cluster(shared):
    with pytest.raises(UsageError, match="memory of one process"):
        require_reachable([("--output", "memory://out.run")], nodes=1, shared=shared)


@pytest.mark.parametrize("uri", ["s3://b/out.run", "gs://b/out.run", "abfs://c/out.run"])
def test_buckets_are_reachable(uri):
    require_reachable([("--output", uri)], nodes=100, shared=False)
    assert absolute(uri) == uri


def test_local_paths_travel_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert absolute("out.run") == str(tmp_path / "out.run")
    assert absolute("/data/out.run") == "/data/out.run"
