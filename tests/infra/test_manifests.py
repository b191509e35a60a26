"""The KubeRay manifests fit KubeRay's schemas, and mean what a run on spot machines needs."""

import copy
import re
import shlex

import pytest
import yaml
from crds import complaints
from drive import REPOSITORY
from locks import locked

from surveyproc import __version__
from surveyproc.cli import run as run_verb
from surveyproc.cli._common import split_overrides
from surveyproc.cli.main import Parser
from surveyproc.config.run import load_run_config

K8S = REPOSITORY / "infra" / "k8s"
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def load(name: str) -> dict:
    return yaml.safe_load((K8S / name).read_text())


def cluster_of(manifest: dict) -> dict:
    return manifest["spec"]["rayClusterSpec"] if manifest["kind"] == "RayJob" else manifest["spec"]


def groups_of(cluster: dict) -> dict[str, dict]:
    return {"head": cluster["headGroupSpec"]} | {g["groupName"]: g for g in cluster["workerGroupSpecs"]}


def container_of(group: dict) -> dict:
    (container,) = group["template"]["spec"]["containers"]
    return container


def nbytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\w*)", str(quantity)).groups()
    return int(number) * (UNITS[unit] if unit else 1)


def command_of(job: dict):
    """Flags and config of the job's entrypoint, by the parsers that will read it."""
    program, verb, *words = shlex.split(job["spec"]["entrypoint"])
    assert (program, verb) == ("surveyproc", "run")
    parser = Parser(prog="surveyproc run")
    run_verb.add_arguments(parser)
    args, rest = parser.parse_known_args(words)
    bundles, settings = split_overrides(args.bundle, rest)
    assert bundles == ["gz2"]
    return args, load_run_config(settings)


manifests = pytest.mark.parametrize("name", ["rayjob.yaml", "raycluster.yaml"])


@manifests
def test_the_manifest_fits_the_schema_of_its_kind(name, shared_data):
    assert complaints(shared_data / "kuberay", load(name)) == []


def misspelt(manifest: dict, path: tuple, wrong: str) -> dict:
    manifest = copy.deepcopy(manifest)
    place = manifest
    for step in path[:-1]:
        place = place[step]
    place[wrong] = place.pop(path[-1])
    return manifest


CLUSTER = ("spec", "rayClusterSpec")
HEAD = (*CLUSTER, "headGroupSpec")
GPU = (*CLUSTER, "workerGroupSpecs", 0)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("spec", "backoffLimit"), "backofLimit"),
        ((*CLUSTER, "autoscalerOptions", "idleTimeoutSeconds"), "idleTimeoutSecond"),
        ((*GPU, "maxReplicas"), "maxReplica"),
        ((*HEAD, "template", "spec", "serviceAccountName"), "serviceAcountName"),
        ((*GPU, "template", "spec", "containers", 0, "resources", "limits"), "limit"),
        ((*GPU, "template", "spec", "volumes", 0, "emptyDir", "sizeLimit"), "sizelimit"),
    ],
)
def test_a_misspelt_field_is_refused(path, wrong, shared_data):
    found = complaints(shared_data / "kuberay", misspelt(load("rayjob.yaml"), path, wrong))
    assert found
    assert any(f"'{wrong}' was unexpected" in line for line in found), found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "backoffLimit"), "5"),
        ((*CLUSTER, "authOptions", "mode"), "password"),
        ((*HEAD, "rayStartParams", "num-cpus"), 0),
        ((*GPU, "template", "spec", "tolerations", 0, "operator"), ["Exists"]),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(path, value, shared_data):
    manifest = load("rayjob.yaml")
    place = manifest
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert complaints(shared_data / "kuberay", manifest)


@manifests
def test_one_version_of_ray_everywhere(name):
    cluster = cluster_of(load(name))
    assert cluster["rayVersion"] == locked("cpu")["ray"] == locked("gpu")["ray"]
    for group, spec in groups_of(cluster).items():
        variant = "gpu" if group == "gpu" else "cpu"
        tag = container_of(spec)["image"].rpartition(":")[2]
        assert tag == f"{__version__}-ray{cluster['rayVersion']}-{variant}"


@manifests
def test_shared_memory_holds_the_object_store(name):
    for group, spec in groups_of(cluster_of(load(name))).items():
        pod, container = spec["template"]["spec"], container_of(spec)
        (mount,) = [m for m in container["volumeMounts"] if m["mountPath"] == "/dev/shm"]
        (volume,) = [v for v in pod["volumes"] if v["name"] == mount["name"]]
        store = int(spec["rayStartParams"]["object-store-memory"])
        assert volume["emptyDir"]["medium"] == "Memory"
        assert nbytes(volume["emptyDir"]["sizeLimit"]) == store, group
        assert store <= nbytes(container["resources"]["limits"]["memory"]) / 4, (
            "a memory volume counts as memory"
        )


@manifests
def test_the_head_runs_the_driver_and_nothing_else(name):
    cluster = cluster_of(load(name))
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert head["template"]["spec"]["nodeSelector"] == {"karpenter.sh/capacity-type": "on-demand"}
    assert "tolerations" not in head["template"]["spec"]


@manifests
def test_requests_equal_limits(name):
    """Ray reads the limits, Kubernetes places by the requests; a GPU cannot be overcommitted at all."""
    cluster = cluster_of(load(name))
    for spec in [*map(container_of, groups_of(cluster).values()), cluster["autoscalerOptions"]]:
        assert spec["resources"]["requests"] == spec["resources"]["limits"]
    gpus = {
        g: container_of(s)["resources"]["limits"].get("nvidia.com/gpu") for g, s in groups_of(cluster).items()
    }
    assert gpus == {"head": None, "gpu": "1", "cpu": None}


@manifests
def test_workers_are_spot_machines_that_the_autoscaler_replaces(name):
    cluster = cluster_of(load(name))
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    for group in cluster["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        assert pod["nodeSelector"] == {"karpenter.sh/capacity-type": "spot"}
        wanted = {"surveyproc/spot"} | ({"nvidia.com/gpu"} if group["groupName"] == "gpu" else set())
        assert {t["key"] for t in pod["tolerations"]} == wanted
        assert all(t["operator"] == "Exists" and t["effect"] == "NoSchedule" for t in pod["tolerations"])
    for spec in groups_of(cluster).values():
        assert spec["template"]["spec"]["restartPolicy"] == "Never", "v2 takes a restarted pod for a new node"


def test_a_retried_job_resumes_and_ends():
    job = load("rayjob.yaml")["spec"]
    assert job["backoffLimit"] >= 1
    assert 0 < job["preRunningDeadlineSeconds"] < job["activeDeadlineSeconds"]
    assert job["shutdownAfterJobFinishes"] is True
    assert not {"jobId", "clusterSelector", "entrypointNumCpus", "entrypointNumGpus"} & job.keys(), (
        "a fixed id cannot be used again, and an entrypoint with resources would run on a spot worker"
    )
    args, _ = command_of({"spec": job})
    assert args.output.startswith("s3://")
    assert args.input.startswith("s3://")


def test_the_command_fits_the_cluster_it_gets():
    job = load("rayjob.yaml")
    _, config = command_of(job)
    gpu = groups_of(cluster_of(job))["gpu"]
    assert config.engine.device == "cuda", "the driver's pod has no GPU to find"
    assert config.engine.precision != "auto", "nor can it tell what the workers' GPUs compute"
    assert config.cluster.kind == "address"
    assert config.cluster.actors == gpu["maxReplicas"]
    assert gpu["replicas"] == gpu["minReplicas"] == 0
    assert config.cluster.wait_seconds > 0, "machines come when the run asks for them"


def test_the_standing_cluster_has_the_same_nodes_as_the_job():
    assert cluster_of(load("raycluster.yaml")) == cluster_of(load("rayjob.yaml"))


@manifests
def test_calls_need_a_token_and_pods_need_no_root(name):
    cluster = cluster_of(load(name))
    assert cluster["authOptions"] == {"mode": "token"}, "KubeRay makes the secret; none is written here"
    for spec in groups_of(cluster).values():
        assert spec["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
        security = container_of(spec)["securityContext"]
        assert security == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_identities_come_from_service_accounts():
    accounts = {
        a["metadata"]["name"]: a for a in yaml.safe_load_all((K8S / "serviceaccount.yaml").read_text())
    }
    for name in ("rayjob.yaml", "raycluster.yaml"):
        groups = groups_of(cluster_of(load(name)))
        used = {group: spec["template"]["spec"]["serviceAccountName"] for group, spec in groups.items()}
        assert used == {"head": "surveyproc", "gpu": "surveyproc-worker", "cpu": "surveyproc-worker"}
    assert accounts.keys() == {"surveyproc", "surveyproc-worker"}
    for account in accounts.values():
        assert account["apiVersion"] == "v1"
        assert account["kind"] == "ServiceAccount"
        assert re.fullmatch(
            r"arn:aws:iam::\d{12}:role/surveyproc",
            account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"],
        )
    assert accounts["surveyproc-worker"]["automountServiceAccountToken"] is False


@manifests
def test_names_leave_room_for_what_kuberay_appends(name):
    manifest = load(name)
    assert manifest["metadata"].keys() <= {"name", "namespace", "labels", "annotations"}
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?", manifest["metadata"]["name"])


SECRETS = re.compile(
    r"AKIA[0-9A-Z]{16}|aws_secret|secret_?access_?key\s*[:=]|BEGIN [A-Z ]*PRIVATE KEY|password\s*[:=]|"
    r"RAY_AUTH_TOKEN\s*[:=](?!\$\()|kind:\s*Secret|secretName",
    re.IGNORECASE,
)


def infra_files():
    return [p for p in sorted((REPOSITORY / "infra").rglob("*")) if p.is_file() and p.parent.name != "locks"]


@pytest.mark.parametrize("path", infra_files(), ids=lambda p: p.name)
def test_no_credentials_are_written_down(path):
    assert not SECRETS.search(path.read_text())


@pytest.mark.parametrize(
    "text", ["AWS_SECRET_ACCESS_KEY: x", "password: x", "RAY_AUTH_TOKEN=x", "kind: Secret"]
)
def test_the_search_for_credentials_finds_them(text):
    assert SECRETS.search(text)
