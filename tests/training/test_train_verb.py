import io
import json
import shlex
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from surveyproc.catalog import CatalogWriter
from surveyproc.cli import train as verb
from surveyproc.cli.main import main
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
        "sweep": None,
        "values": None,
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


def words(inputs, output, *more):
    flags = [
        "--catalog",
        str(inputs / "c.cat"),
        "--labels",
        str(inputs / "labels.csv"),
        "--output",
        str(output),
    ]
    return ["train", "morphology", *flags, *QUICK, *more]


def test_the_same_command_again_says_it_is_done_and_other_settings_are_refused(inputs, tmp_path, capsys):
    assert main(words(inputs, tmp_path / "b")) == 0
    first = (tmp_path / "b" / "model.json").read_bytes()
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == [
        "README.md",
        "model.json",
        "model.safetensors",
    ]
    capsys.readouterr()
    assert main(words(inputs, tmp_path / "b")) == 0
    assert "is finished: nothing to do" in capsys.readouterr().out
    assert main(words(inputs, tmp_path / "b", "train.learning_rate=0.5", "train.checkpoint_minutes=3")) == 2
    said = capsys.readouterr().err
    assert "train.learning_rate: 0.0015 there, 0.5 here" in said
    assert "checkpoint" not in said
    assert (tmp_path / "b" / "model.json").read_bytes() == first
    assert main(words(inputs, tmp_path / "b", "train.seed=2", "--overwrite")) == 0
    assert json.loads((tmp_path / "b" / "model.json").read_text())["training"]["recipe"]["seed"] == 2


def test_a_sweep_numbers_its_trainings_and_judges_none_on_the_test_split(
    inputs, tmp_path, capsys, monkeypatch
):
    command = words(inputs, tmp_path / "s", "--sweep", "train.seed=1,2", "train.weight_decay=0.1")
    monkeypatch.setattr("sys.argv", ["surveyproc", *command])
    assert main(command) == 0
    printed = capsys.readouterr()
    table = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert [(m["name"], m["settings"]) for m in table] == [
        ("000", ["train.seed=1", "train.weight_decay=0.1"]),
        ("001", ["train.seed=2", "train.weight_decay=0.1"]),
    ]
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == ["000.train", "001.train", "sweep.json"]
    assert printed.err.count("examples: ") == 1
    assert "test ids" not in printed.out
    best = min(table, key=lambda m: m["validation_rmse"])
    chosen = shlex.split(printed.out.splitlines()[-1])
    assert chosen[-2:] == ["--output", str(tmp_path / "s" / best["name"])]
    assert main(chosen[1:]) == 0
    again = capsys.readouterr()
    assert f"resuming after {best['images_seen']} images" in again.err
    assert "test ids" in again.out


def test_settings_of_another_encoder_replace_those_of_the_default(inputs, tmp_path, capsys):
    other = ["train.encoder=resnet10t", "train.encoder_arguments={channels: [8, 8, 8, 8], stem_width: 8}"]
    assert main(words(inputs, tmp_path / "o", *other)) == 0
    arguments = json.loads((tmp_path / "o" / "model.json").read_text())["arguments"]
    assert arguments["encoder_arguments"] == {"channels": [8, 8, 8, 8], "stem_width": 8}
    wrong = ["train.encoder_arguments=3", "train.num_workers=-1", "train.finetune=frozn", "train.clip=no"]
    assert main(words(inputs, tmp_path / "p", *wrong)) == 2
    said = capsys.readouterr().err
    for problem in (
        "train.encoder_arguments=3: must be a dictionary",
        "train.num_workers=-1: must not be negative",
        "train.finetune=frozn: must be one of full, partial, frozen. Did you mean 'frozen'?",
        "train.clip=no",
    ):
        assert problem in said


def test_a_catalog_of_other_bands_is_refused_by_name(inputs, tmp_path, capsys):
    assert main(words(inputs, tmp_path / "n", "train.bands=[R,G,B,NIR]")) == 3
    assert "NIR" in capsys.readouterr().err
