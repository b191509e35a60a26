import io
import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from surveyproc.catalog import CatalogWriter
from surveyproc.cli import train as verb
from surveyproc.cutouts import ImageSpec
from surveyproc.errors import InputError, UsageError
from surveyproc.models.bundle import open_bundle
from surveyproc.votes import load_schema

QUICK = [
    "train.encoder_arguments.channels=[8,8,16,16]",
    "train.size=16",
    "train.batch=16",
    "train.epochs=1",
    "train.precision=fp32",
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    schema = load_schema("galaxy-challenge")
    fractions = np.concatenate(
        [rng.dirichlet(np.ones(len(q.answers)), 120) for q in schema.questions], axis=1
    )
    joint = schema.joint(fractions)
    header = ",".join(["GalaxyID", *(schema.labels[c] for c in schema.columns)])
    rows = [",".join([str(i), *(f"{v:.6f}" for v in joint[i])]) for i in range(120)]
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n")

    def encode(i):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), np.uint8)).save(file, "png")
        return file.getvalue()

    columns = pa.schema([("object_id", pa.int64())])
    with CatalogWriter(str(folder / "c.cat"), ImageSpec("png", (48, 48, 3), "uint8"), columns) as writer:
        images = pa.array([encode(i) for i in range(120)], pa.binary())
        writer.write(pa.record_batch({"object_id": pa.array(range(120)), "image": images}))
    return folder


def arguments(inputs, output, overrides=(), **changes):
    values = {
        "model": "morphology",
        "catalog": str(inputs / "c.cat"),
        "labels": str(inputs / "labels.csv"),
        "id": "GalaxyID",
        "schema": "galaxy-challenge",
        "data": None,
        "output": str(output),
        "overwrite": False,
        "settings": False,
        "overrides": [*QUICK, *overrides],
    }
    return SimpleNamespace(**(values | changes))


def test_the_verb_writes_a_bundle_that_opens_and_tells_how_it_was_made(inputs, tmp_path, capsys):
    assert verb.run(arguments(inputs, tmp_path / "mine")) == 0
    printed = capsys.readouterr()
    assert "on" in printed.out
    assert "test ids" in printed.out
    assert "120 ids in both, 0 only in the catalog, 0 only in the labels" in printed.err
    bundle = open_bundle(str(tmp_path / "mine"))
    assert bundle.name == "mine"
    assert bundle.contract.size == 16
    assert bundle.contract.bands == ("R", "G", "B")
    assert bundle.record["training"]["recipe"]["seed"] == 1
    assert bundle.record["training"]["galaxies"]["test"] == bundle.record["metrics"]["n"]
    assert json.loads((tmp_path / "mine" / "model.json").read_text())["outputs"]["vote_schema"]["name"]
    assert bundle.build().head(bundle.build().encode(torch.zeros(1, 3, 16, 16))).shape == (1, 17)


def test_a_bundle_that_is_there_is_not_replaced_by_accident(inputs, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.json").write_text("{}")
    with pytest.raises(UsageError, match="there is a bundle already"):
        verb.run(arguments(inputs, tmp_path / "mine"))


def test_wrong_settings_are_told_before_anything_is_read(inputs, tmp_path):
    with pytest.raises(UsageError, match=r"train\.epochs=-1"):
        verb.run(arguments(inputs, tmp_path / "a", ["train.epochs=-1"], catalog="/nowhere"))
    with pytest.raises(UsageError, match=r"Did you mean 'train\.epochs'"):
        verb.run(arguments(inputs, tmp_path / "a", ["train.epoch=1"], catalog="/nowhere"))


def test_labels_of_other_galaxies_end_the_verb(inputs, tmp_path):
    head, *rows = (inputs / "labels.csv").read_text().splitlines()
    (tmp_path / "l.csv").write_text("\n".join([head, *(f"x{row}" for row in rows)]))
    with pytest.raises(InputError, match="no id of the labels is in the catalog"):
        verb.run(arguments(inputs, tmp_path / "a", labels=str(tmp_path / "l.csv")))
