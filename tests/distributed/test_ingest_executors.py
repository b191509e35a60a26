"""An ingest of tiles on Ray, and in a bucket: the same bytes as in this process on a disk."""

from __future__ import annotations

import uuid

import pytest
from drive import lasting_digests
from skytiles import mosaic, positions, write_sources
from stores import BUCKET, environment_of, rclone_server, s3_server

from surveyproc.catalog import open_catalog
from surveyproc.cli.main import main
from surveyproc.storage import Storage

PIECES = ["ingest.partition_mb=0.1", "ingest.unit_mb=0.06", "ingest.chunk_rows=150"]


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Two tiles and their sources; the catalog made of them in this process."""
    folder = tmp_path_factory.mktemp("survey")
    mosaic(folder, 2, 1)
    ra, dec = positions(200, 2, 1, beyond=0.002)
    write_sources(folder / "S.parquet", object_id=list(range(200)), ra=ra, dec=dec)
    assert ingest(folder, folder / "here" / "o.cat") == 0
    return folder, files_of(folder / "here" / "o.cat")


def ingest(folder, output, *more):
    words = [
        "--tiles",
        f"{folder}/{{tile}}_{{band}}.fits",
        "--bands",
        "g,r",
        "--sources",
        f"{folder}/S.parquet",
    ]
    more = more or ("cluster=none", "cluster.actors=2")
    return main(["ingest", *words, "--size", "12", "--output", str(output), *PIECES, *more])


def files_of(catalog):
    """Every file of a catalog but those that tell of the command and its time."""
    storage = Storage(str(catalog))
    names = set(storage.walk()) - {"catalog.json", "hats.properties"}
    found = {name: storage.read(name) for name in names}
    return found | {"checksums.sha256": lasting_digests(found["checksums.sha256"])}


def test_ray_gives_the_bytes_of_a_plain_ingest(ray_session, survey, tmp_path, capsys):
    folder, expected = survey
    assert ingest(folder, tmp_path / "o.cat", "cluster=local", "cluster.actors=2") == 0
    assert files_of(tmp_path / "o.cat") == expected
    assert "cutouts" in capsys.readouterr().out


def test_an_ingest_begun_here_is_finished_on_ray(ray_session, survey, tmp_path, monkeypatch):
    folder, expected = survey
    with monkeypatch.context() as patch:
        patch.setenv("SURVEYPROC_STEP_HOOK", "test_ingest_executors:interrupt")
        with pytest.raises(RuntimeError, match="enough"):
            ingest(folder, tmp_path / "o.cat")
    assert list((tmp_path / "o.cat" / "_work" / "_commits").glob("cut-*.json"))
    assert ingest(folder, tmp_path / "o.cat", "cluster=local", "cluster.actors=2") == 0
    assert files_of(tmp_path / "o.cat") == expected


def interrupt(name, subject):
    """Stop an ingest when its third unit is committed."""
    if name == "commit.done" and subject == "cut-0000002":
        raise RuntimeError("enough")


@pytest.fixture(scope="module")
def moto():
    with s3_server() as server:
        yield server


def upload(folder, uri):
    storage = Storage(uri)
    for path in [*folder.glob("*.fits"), folder / "S.parquet"]:
        storage.replace(path.name, path.read_bytes())


def test_tiles_sources_and_catalog_in_a_bucket(moto, survey, tmp_path, monkeypatch):
    folder, expected = survey
    with environment_of(moto, monkeypatch):
        uri = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        upload(folder, f"{uri}/in")
        assert ingest(f"{uri}/in", f"{uri}/o.cat") == 0
        assert files_of(f"{uri}/o.cat") == expected
        storage = Storage(f"{uri}/o.cat")
        assert storage.names() == [
            "catalog.json",
            "checksums.sha256",
            "dataset",
            "hats.properties",
            "partition_info.csv",
            "rejects.parquet",
        ]
        assert storage.fs.list_multipart_uploads(BUCKET) == []
        assert open_catalog(f"{uri}/o.cat").rows > 100
        assert ingest(f"{uri}/in", f"{uri}/o.cat") == 0
        upload(folder, f"{uri}/in")
        assert ingest(f"{uri}/in", f"{uri}/o.cat") in (0, 2)


def test_an_interrupted_ingest_in_a_bucket_resumes(moto, survey, monkeypatch):
    folder, expected = survey
    with environment_of(moto, monkeypatch):
        uri = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        with monkeypatch.context() as patch:
            patch.setenv("SURVEYPROC_STEP_HOOK", "test_ingest_executors:interrupt")
            with pytest.raises(RuntimeError, match="enough"):
                ingest(folder, f"{uri}/o.cat")
        with pytest.raises(Exception, match="unfinished"):
            open_catalog(f"{uri}/o.cat")
        assert ingest(folder, f"{uri}/o.cat") == 0
        assert files_of(f"{uri}/o.cat") == expected


def test_a_store_that_overwrites_has_one_driver_that_commits(survey, tmp_path, monkeypatch):
    folder, expected = survey
    with rclone_server(tmp_path / "store") as server, environment_of(server, monkeypatch):
        assert ingest(folder, f"s3://{BUCKET}/o.cat") == 0
        assert files_of(f"s3://{BUCKET}/o.cat") == expected
