"""The bucket policy gives what a run needs, measured on a run, and nothing that could undo one."""

import json
from contextlib import suppress

import pytest
from drive import REPOSITORY, run_here
from iam import allows
from s3_actions import needs_of, recorded
from stores import environment_of, s3_server
from toys import toy_bundle, toy_catalog

from surveyproc import stores
from surveyproc.runs import open_run
from surveyproc.runs.publish import publish
from surveyproc.runs.query import query
from surveyproc.runs.verify import verify_run
from surveyproc.runs.verify_catalog import verify_catalog
from surveyproc.storage import UPLOAD_BLOCK, Storage

AWS = REPOSITORY / "infra" / "aws"
POLICY = json.loads((AWS / "bucket-policy.json").read_text())
BUCKET = "arn:aws:s3:::my-survey"
WORKER, HEAD = (f"arn:aws:iam::111122223333:role/{name}" for name in ("surveyproc", "surveyproc-head"))


def permitted(action: str, key: str = "", principal: str = WORKER, **context: str) -> bool:
    return allows(POLICY, action, f"{BUCKET}/{key}" if key else BUCKET, principal, **context)


def put(key: str, **context: str) -> bool:
    return permitted("s3:PutObject", key, **({"ObjectCreationOperation": "true"} | context))


def actions_of(statement: dict) -> list[str]:
    actions = statement["Action"]
    return [actions] if isinstance(actions, str) else actions


@pytest.fixture(scope="module")
def needs(tmp_path_factory):
    """Rights that a run, its resume, its verification, a query and publishing needed on a real server."""
    scratch = tmp_path_factory.mktemp("policy")
    catalog = toy_catalog(scratch / "toy.cat", rows=40, positions=True)
    bundle = toy_bundle(scratch / "toy-bundle")
    with pytest.MonkeyPatch.context() as patch, s3_server() as server, environment_of(server, patch):
        source, run = f"s3://{server.bucket}/catalogs/toy", f"s3://{server.bucket}/runs/toy"
        upload(catalog, source)
        with recorded(patch) as needs:
            assert Storage(run).creates_only_once()
            upload_in_parts(Storage(run))
            run_here(source, run, bundle)
            assert run_here(source, run, bundle).nothing_to_do
            assert all(check.passed for check in verify_run(open_run(run)))
            assert query([run], "SELECT count(*) FROM morphology")[1] == [(40,)]
            published = f"s3://{server.bucket}/catalogs/published"
            publish([run], published, "hats")
            assert publish([run], published, "hats")["nothing_to_do"]
            assert all(check.passed for check in verify_catalog(published))
            assert query([published], "SELECT count(*) FROM catalog")[1] == [(40,)]
    return needs


def upload(folder, uri: str) -> None:
    filesystem, path = stores.filesystem(uri)
    filesystem.put(f"{folder}/", path, recursive=True)


def upload_in_parts(storage: Storage) -> None:
    """A file that takes several requests, and one that is given up on the way."""
    part = bytes(UPLOAD_BLOCK)
    with storage.writing("_attempts/large/part") as file:
        for _ in range(3):
            file.write(part)
    with suppress(KeyboardInterrupt), storage.writing("_attempts/large/broken") as file:
        for _ in range(3):
            file.write(part)
        raise KeyboardInterrupt
    storage.delete(["_attempts/large/part"])


@pytest.mark.slow
def test_everything_a_run_does_is_permitted(needs):
    allowed = {a for s in POLICY["Statement"] if s["Effect"] == "Allow" for a in actions_of(s)}
    assert {n.action for n in needs} == allowed, "no right that is not needed"
    for role in (WORKER, HEAD):
        refused = [n for n in needs if not permitted(n.action, n.key, role, **n.context)]
        assert not refused


@pytest.mark.slow
def test_every_record_was_created_and_none_deleted(needs):
    """What the policy denies is no restriction: the protocol never does it."""
    made = [
        n for n in needs if n.action == "s3:PutObject" and "/_work/" in n.key and is_record_of_work(n.key)
    ]
    assert made
    assert all(n.context.get("if_none_match") == "*" for n in made)
    records = [n for n in needs if is_record(n.key)]
    written = [n for n in records if n.action == "s3:PutObject"]
    assert {kind_of(n.key) for n in written} == {"_commits", "_manifests", "_plan.parquet", "run.json"}
    assert all(n.context.get("if_none_match") == "*" for n in written)
    assert not [n for n in records if n.action == "s3:DeleteObject"]


def kind_of(key: str) -> str:
    return key.removeprefix("runs/toy/").partition("/")[0]


def is_record_of_work(key: str) -> bool:
    return key.partition("/_work/")[2].partition("/")[0] in ("_commits", "run.json")


def is_record(key: str) -> bool:
    return kind_of(key) in ("_commits", "_manifests", "_plan.parquet", "run.json")


@pytest.mark.parametrize(
    "key", ["_commits/shard-00001.json", "_manifests/000001.json", "_plan.parquet", "run.json"]
)
def test_a_record_can_be_created_but_not_overwritten_or_deleted(key):
    assert put(f"runs/dr10/{key}", if_none_match="*")
    assert put(f"runs/2026/dr10/{key}", if_none_match="*")
    assert not put(f"runs/dr10/{key}")
    assert not put(f"runs/2026/dr10/{key}")
    assert not permitted("s3:DeleteObject", f"runs/dr10/{key}")
    assert permitted("s3:GetObject", f"runs/dr10/{key}")


def test_a_large_plan_goes_up_in_parts_and_is_created_at_the_end():
    assert put("runs/dr10/_plan.parquet", ObjectCreationOperation="false")
    assert not put("runs/dr10/_plan.parquet", ObjectCreationOperation="true")
    assert put("runs/dr10/_plan.parquet", ObjectCreationOperation="true", if_none_match="*")
    assert permitted("s3:AbortMultipartUpload", "runs/dr10/_plan.parquet")


def test_catalogs_can_be_made_and_the_records_of_their_making_are_not_overwritten():
    assert permitted("s3:GetObject", "catalogs/dr10/dataset/Norder=0/Npix=1.parquet")
    assert permitted("s3:ListBucket", prefix="catalogs/dr10/")
    assert put("catalogs/dr10/x.parquet")
    for record in ("_commits/cut-0000000.json", "_plan.parquet", "_partitions.parquet", "run.json"):
        assert put(f"catalogs/dr10/_work/{record}", if_none_match="*")
        assert not put(f"catalogs/dr10/_work/{record}")
        assert permitted("s3:DeleteObject", f"catalogs/dr10/_work/{record}"), "a finished catalog drops them"


def test_the_rest_of_the_bucket_is_not_even_seen():
    for prefix in ("", "private/", "cat"):
        assert not permitted("s3:ListBucket", prefix=prefix)
    assert not permitted("s3:ListBucket"), "without a prefix a listing shows everything"
    assert not permitted("s3:GetObject", "private/x")
    assert not put("private/x", if_none_match="*")


def test_nobody_else_gets_anything_and_nothing_else_is_given():
    assert not permitted("s3:GetObject", "catalogs/x", principal="arn:aws:iam::111122223333:role/other")
    for action in ("s3:PutBucketPolicy", "s3:DeleteBucket", "s3:PutObjectAcl", "s3:GetBucketPolicy"):
        assert not permitted(action)
        assert not permitted(action, "runs/dr10/x")
    assert not [a for s in POLICY["Statement"] for a in actions_of(s) if "*" in a]
    assert not [s["Sid"] for s in POLICY["Statement"] if s["Principal"] == "*"]


def test_requests_are_read_as_s3_defines_them():
    url = "http://127.0.0.1:1/my-survey/runs/a%20b/_commits/x.json"
    (plain,) = needs_of("PUT", url, {"If-None-Match": b"*"}, b"")
    assert (plain.action, plain.key) == ("s3:PutObject", "runs/a b/_commits/x.json")
    assert plain.context == {"ObjectCreationOperation": "true", "if_none_match": "*"}
    (begin,) = needs_of("POST", f"{url}?uploads", {}, b"")
    (part,) = needs_of("PUT", f"{url}?partNumber=1&uploadId=u", {}, b"")
    (end,) = needs_of("POST", f"{url}?uploadId=u", {}, b"")
    assert [n.context["ObjectCreationOperation"] for n in (begin, part, end)] == ["false", "false", "true"]
    copy = needs_of("PUT", url, {"x-amz-copy-source": "my-survey/runs/y"}, b"")
    assert [(n.action, n.key) for n in copy] == [("s3:PutObject", plain.key), ("s3:GetObject", "runs/y")]
    with pytest.raises(NotImplementedError):
        needs_of("PUT", f"{url}?acl", {}, b"")


def test_the_lifecycle_rule_ends_uploads_and_never_expires_objects():
    """Parts of a shard without a commit stay, whatever their age: only uploads nobody finished may go."""
    rules = json.loads((AWS / "lifecycle.json").read_text())["Rules"]
    for rule in rules:
        assert rule["Status"] == "Enabled"
        assert rule.keys() == {"ID", "Status", "Filter", "AbortIncompleteMultipartUpload"}
    assert {rule["Filter"]["Prefix"] for rule in rules} == {"runs/", "catalogs/"}
