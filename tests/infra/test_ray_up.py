"""The `ray up` file fits Ray's schema and EC2's, and asks for the cluster the runs are written for."""

import copy
import json
import re

import boto3
import botocore.session
import jsonschema
import pytest
import yaml
from botocore.validate import ParamValidator
from drive import REPOSITORY
from iam import allows
from locks import locked
from moto import mock_aws
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config

from surveyproc import __version__

AWS = REPOSITORY / "infra" / "aws"


@pytest.fixture
def config() -> dict:
    return yaml.safe_load((AWS / "cluster.yaml").read_text())


def validated(config: dict) -> dict:
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_ray_accepts_the_file(config):
    prepared = validated(config)
    assert prepared["available_node_types"]["head"]["max_workers"] == 0


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("max_workers",), "max_worker"),
        (("docker", "run_options"), "run_option"),
        (("available_node_types", "gpu", "min_workers"), "min_worker"),
        (("available_node_types", "gpu", "docker", "worker_image"), "image"),
    ],
)
def test_ray_refuses_a_misspelt_key(config, path, wrong):
    place = config
    for step in path[:-1]:
        place = place[step]
    place[wrong] = place.pop(path[-1])
    with pytest.raises(jsonschema.ValidationError, match=f"'{wrong}' was unexpected"):
        validated(config)


def test_ray_refuses_a_head_type_that_does_not_exist(config):
    config["head_node_type"] = "haed"
    with pytest.raises(ValueError, match="head_node_type"):
        validated(config)


def test_the_groups_fit_into_the_cluster(config):
    workers = [t for name, t in config["available_node_types"].items() if name != "head"]
    assert sum(t["max_workers"] for t in workers) <= config["max_workers"]
    assert all(t["min_workers"] <= t["max_workers"] for t in workers)


def ec2_complaints(node_config: dict) -> str:
    """What EC2's own model has against a request for such a node (Ray's schema leaves it open)."""
    model = botocore.session.get_session().get_service_model("ec2")
    request = node_config | {"MinCount": 1, "MaxCount": 1}
    return (
        ParamValidator()
        .validate(request, model.operation_model("RunInstances").input_shape)
        .generate_report()
    )


def test_ec2_knows_every_key_of_every_node(config):
    for name, node_type in config["available_node_types"].items():
        assert ec2_complaints(node_type["node_config"]) == "", name


def test_ec2_refuses_a_misspelt_key(config):
    node = config["available_node_types"]["gpu"]["node_config"]
    node["InstanceMarketOption"] = node.pop("InstanceMarketOptions")
    assert "InstanceMarketOption" in ec2_complaints(node)


@pytest.mark.slow
def test_the_provider_of_ray_launches_these_nodes(config, tmp_path, monkeypatch):
    """`ray up` has no dry run: do what it does until the machines are there, on a simulated EC2."""
    for name, value in {
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        iam = boto3.client("iam")
        trust, head = ((AWS / name).read_text() for name in ("trust-policy.json", "head-policy.json"))
        for role in ("surveyproc", "surveyproc-head"):
            iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust)
            iam.create_instance_profile(InstanceProfileName=role)
            iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
        iam.put_role_policy(RoleName="surveyproc-head", PolicyName="nodes", PolicyDocument=head)
        ready = bootstrap_aws(validated(config))
        provider = AWSNodeProvider(ready["provider"], ready["cluster_name"])
        for name, node_type in ready["available_node_types"].items():
            provider.create_node(node_type["node_config"], {"ray-user-node-type": name}, 1)
        reservations = boto3.client("ec2", "us-east-1").describe_instances()["Reservations"]
        roles = {role["RoleName"] for role in iam.list_roles()["Roles"]}
    launched = {
        node["InstanceType"]: (
            node.get("InstanceLifecycle"),
            node["IamInstanceProfile"]["Arn"].rpartition("/")[2],
        )
        for reservation in reservations
        for node in reservation["Instances"]
    }
    assert launched == {
        "m7i.xlarge": (None, "surveyproc-head"),
        "g6.2xlarge": ("spot", "surveyproc"),
        "m7i.2xlarge": ("spot", "surveyproc"),
    }
    assert roles == {"surveyproc", "surveyproc-head"}, "Ray made no role of its own"


def test_workers_are_spot_and_the_head_is_not(config):
    markets = {
        n: t["node_config"].get("InstanceMarketOptions") for n, t in config["available_node_types"].items()
    }
    assert markets == {"head": None, "gpu": {"MarketType": "spot"}, "cpu": {"MarketType": "spot"}}
    assert config["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert config["available_node_types"]["gpu"]["resources"]["GPU"] == 1
    assert config["provider"]["cache_stopped_nodes"] is False


def test_one_version_of_ray_everywhere(config):
    images = {config["docker"]["image"]: "cpu"}
    images[config["available_node_types"]["gpu"]["docker"]["worker_image"]] = "gpu"
    for image, variant in images.items():
        assert image.rpartition(":")[2] == f"{__version__}-ray{locked(variant)['ray']}-{variant}"


def test_shared_memory_holds_the_object_store(config):
    (shm,) = [int(o.split("=")[1]) for o in config["docker"]["run_options"] if o.startswith("--shm-size=")]
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        (store,) = re.findall(r"--object-store-memory=(\d+)", " ".join(commands))
        assert int(store) == shm


def test_calls_need_a_token_that_is_in_no_file_of_the_repository(config):
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


def test_nothing_is_installed_when_a_node_starts(config):
    """Ray's defaults install a nightly wheel; an empty list takes their place."""
    prepared = validated(config)
    assert prepared["head_setup_commands"] == prepared["worker_setup_commands"] == []
    assert "boto3" in locked("cpu"), "the head's autoscaler calls EC2 with it"


def test_nodes_get_the_roles_of_the_policies(config):
    """Without a profile Ray would make a role with full rights on S3 and EC2."""
    profiles = {
        n: t["node_config"]["IamInstanceProfile"]["Name"] for n, t in config["available_node_types"].items()
    }
    assert profiles == {"head": "surveyproc-head", "gpu": "surveyproc", "cpu": "surveyproc"}
    policy = json.loads((AWS / "bucket-policy.json").read_text())
    for profile in profiles.values():
        role = f"arn:aws:iam::111122223333:role/{profile}"
        assert allows(policy, "s3:GetObject", "arn:aws:s3:::my-survey/catalogs/x", role)


def test_the_head_may_launch_and_end_its_own_nodes_only(config):
    statements = {s["Sid"]: s for s in json.loads((AWS / "head-policy.json").read_text())["Statement"]}
    actions = {
        a
        for s in statements.values()
        for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])
    }
    assert {"ec2:RunInstances", "ec2:TerminateInstances", "ec2:CreateTags", "ec2:DescribeInstances"} < actions
    assert not [a for a in actions if "*" in a]
    own = statements["EndItsOwnNodes"]["Condition"]["StringEquals"]
    assert own == {"aws:ResourceTag/ray-cluster-name": config["cluster_name"]}
    assert statements["GiveWorkersTheirRole"]["Resource"].endswith(":role/surveyproc"), "not its own, nor all"


def test_the_lifecycle_rule_is_one_that_s3_knows():
    model = botocore.session.get_session().get_service_model("s3")
    shape = model.operation_model("PutBucketLifecycleConfiguration").input_shape
    request = {"Bucket": "b", "LifecycleConfiguration": json.loads((AWS / "lifecycle.json").read_text())}
    assert ParamValidator().validate(request, shape).generate_report() == ""


def test_only_machines_and_our_pods_may_take_the_roles():
    service, pods = json.loads((AWS / "trust-policy.json").read_text())["Statement"]
    assert service["Principal"] == {"Service": "ec2.amazonaws.com"}
    accounts = yaml.safe_load_all((REPOSITORY / "infra" / "k8s" / "serviceaccount.yaml").read_text())
    subjects = [f"system:serviceaccount:surveyproc:{account['metadata']['name']}" for account in accounts]
    (named,) = [value for key, value in pods["Condition"]["StringEquals"].items() if key.endswith(":sub")]
    assert sorted(named) == sorted(subjects)
