"""Verify and repair of runs in a bucket."""

from __future__ import annotations

import uuid

import pytest
from stores import BUCKET, environment_of, rclone_server, s3_server

import surveyproc
from surveyproc.errors import ResourceError
from surveyproc.runs.lease import DriverLease
from surveyproc.storage import Storage


def failed(uri: str) -> set[str]:
    return {c.name for c in surveyproc.verify(uri) if not c.passed}


def upload(whole, uri: str) -> Storage:
    """Copy a finished run into a bucket."""
    storage = Storage(uri)
    for path in whole.rglob("*"):
        if path.is_file():
            storage.replace(str(path.relative_to(whole)), path.read_bytes())
    return storage


def test_in_a_bucket_damage_is_found_and_a_manifest_rebuilt(whole, monkeypatch):
    with s3_server() as server, environment_of(server, monkeypatch):
        uri = f"s3://{BUCKET}/{uuid.uuid4().hex}/out.run"
        storage = upload(whole, uri)
        assert failed(uri) == set()

        storage.delete(["_manifests/000001.json", "morphology/hats.properties"])
        storage.replace("_drivers/0123.json", b"{}")
        storage.replace("_probe/0123", b"first")
        assert failed(uri) == {"manifest"}
        said = [m.subject for m in surveyproc.repair(uri)]
        assert said == ["_manifests/000001.json", "_drivers/0123.json", "_probe/0123"]
        assert failed(uri) == set()

        leaf = next(name for name in storage.walk("embeddings") if "Npix" in name)
        data = bytearray(storage.read(leaf))
        data[100] ^= 1
        storage.replace(leaf, bytes(data))
        storage.delete([next(name for name in storage.walk("index") if name.endswith(".ids.parquet"))])
        assert {"embeddings: digest", "index ids: present"} < failed(uri)


def test_on_a_store_that_overwrites_repair_gives_way_to_a_driver(whole, monkeypatch, tmp_path):
    with rclone_server(tmp_path / "rclone") as server, environment_of(server, monkeypatch):
        uri = f"s3://{BUCKET}/out.run"
        storage = upload(whole, uri)
        storage.delete(["_manifests/000001.json"])
        with DriverLease(storage), pytest.raises(ResourceError, match="another driver is at work"):
            surveyproc.repair(uri)
        assert storage.size("_manifests/000001.json") is None
        assert [m.subject for m in surveyproc.repair(uri)] == ["_manifests/000001.json"]
        assert failed(uri) == set()
