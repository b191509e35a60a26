"""A training that is stopped and resumed ends with the same weights, bit for bit; a changed one is refused."""

import json
import os
import signal
import threading

import numpy as np
import pytest
import torch

from surveyproc.cutouts import InputContract
from surveyproc.errors import InputError, ResourceError, UsageError
from surveyproc.training.checkpoint import checkpoints, read_tensors
from surveyproc.training.examples import Examples
from surveyproc.training.loop import Recipe, train
from surveyproc.training.workspace import Workspace
from surveyproc.votes import Question, VoteSchema

SCHEMA = VoteSchema("toy", (Question("bright", ("yes", "no")),))
CONTRACT = InputContract(("R", "G", "B"), size=16, crop=1.0)
RECIPE = Recipe(
    encoder_arguments={"channels": [8, 8, 8, 8]},
    batch=16,
    epochs=4,
    precision="fp32",
    device="cpu",
    noise=0.05,
    brightness=0.2,
    colour=0.1,
    validate_every=1,
    keep="best",
)


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    bright = rng.random(96)
    pixels = (bright[:, None, None, None] * rng.uniform(100, 255, (96, 32, 32, 3))).astype(np.uint8)
    joint = torch.from_numpy(np.stack([bright, 1 - bright], 1)).float()
    validation = torch.from_numpy(pixels[:16, ::2, ::2]).permute(0, 3, 1, 2).float() / 255
    return Examples(pixels[16:], joint[16:]), Examples(validation.numpy(), joint[:16])


def run(examples, folder, recipe=RECIPE, settings=None, stop_after=None, monkeypatch=None):
    """Train in a workspace; ``stop_after`` steps the process gets a SIGTERM."""
    with Workspace(folder) as workspace:
        workspace.begin(settings or {"train": {"seed": 1}})
        if stop_after is not None:
            steps = []

            def count(*words):
                steps.append(words)
                if len(steps) == stop_after:
                    os.kill(os.getpid(), signal.SIGTERM)
                return update(*words)

            from surveyproc.training import loop

            update = loop.update_average
            monkeypatch.setattr(loop, "update_average", count)
        return train(*examples, SCHEMA, CONTRACT, recipe, keeper=workspace)


@pytest.fixture(scope="module")
def whole(examples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "w"
    model, log = run(examples, folder)
    return folder, model.state_dict(), log


def lines(folder, name):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return np.array([(line["images_seen"], line[name]) for line in found if name in line])


@pytest.mark.parametrize("steps", [2, 7, 10])
def test_a_stopped_training_goes_on_as_if_nothing_had_been(examples, whole, tmp_path, monkeypatch, steps):
    folder, weights, log = whole
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        run(examples, tmp_path / "w", stop_after=steps, monkeypatch=patch)
    assert read_tensors(checkpoints(tmp_path / "w")[-1])[1]["images_seen"] == 16 * steps
    model, resumed = run(examples, tmp_path / "w")
    assert resumed["images_seen"] == log["images_seen"] == 320
    assert resumed["validation"] == log["validation"]
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    for name in ("validation/rmse", "train/loss"):
        np.testing.assert_allclose(lines(tmp_path / "w", name), lines(folder, name), rtol=1e-5)


def test_a_training_killed_between_checkpoints_repeats_what_was_lost(examples, whole, tmp_path, monkeypatch):
    folder, weights, _ = whole
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        run(examples, tmp_path / "w", stop_after=13, monkeypatch=patch)
    checkpoints(tmp_path / "w")[-1].unlink()
    with (tmp_path / "w" / "metrics.jsonl").open("a") as file:
        file.write('{"images_seen": 300, "train/loss": 9.0}\n{"images_se')
    model, _ = run(examples, tmp_path / "w")
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    np.testing.assert_allclose(lines(tmp_path / "w", "train/loss"), lines(folder, "train/loss"), rtol=1e-5)


def test_two_checkpoints_and_the_best_weights_are_kept(whole):
    folder, weights, log = whole
    names = sorted(p.name for p in folder.iterdir() if p.name.endswith(".safetensors"))
    best = min(log["validation"], key=lambda look: look["rmse"])
    assert log["best"] == best
    assert names == [
        f"best-{best['images_seen']:012d}.safetensors",
        "checkpoint-000000000240.safetensors",
        "checkpoint-000000000320.safetensors",
    ]
    tensors, _ = read_tensors(folder / names[0])
    assert all(torch.equal(tensors[k], weights[k]) for k in weights)


def test_early_stopping_ships_the_best_look(examples, tmp_path):
    recipe = Recipe(**{**vars(RECIPE), "patience": 2, "keep": "last", "learning_rate": 1e-9, "epochs": 40})
    model, log = run(examples, tmp_path / "w", recipe)
    assert log["stopped_early"]
    assert log["images_seen"] < 40 * 80
    assert len(log["validation"]) - 1 - log["validation"].index(log["best"]) == 2
    again, repeated = run(examples, tmp_path / "w", recipe)
    assert repeated["images_seen"] == log["images_seen"]
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


def test_changed_settings_are_refused_with_every_difference(tmp_path):
    with Workspace(tmp_path / "w") as workspace:
        workspace.begin(
            {"train": {"seed": 1, "batch": 64, "checkpoint_minutes": 1}, "data": {"catalog": "a"}}
        )
        with pytest.raises(UsageError) as caught:
            workspace.begin(
                {"train": {"seed": 2, "batch": 64, "checkpoint_minutes": 9}, "data": {"catalog": "b"}}
            )
    assert "data.catalog: a there, b here" in str(caught.value)
    assert "train.seed: 1 there, 2 here" in str(caught.value)
    assert "batch" not in str(caught.value)
    assert "minutes" not in str(caught.value)


def test_a_second_process_is_refused(tmp_path):
    with Workspace(tmp_path / "w"), pytest.raises(ResourceError, match="another process is training"):
        Workspace(tmp_path / "w").__enter__()
    with Workspace(tmp_path / "w"):
        pass


def test_a_damaged_checkpoint_is_told_with_a_way_out(examples, whole, tmp_path):
    folder, _, _ = whole
    (tmp_path / "w").mkdir()
    data = checkpoints(folder)[-1].read_bytes()
    (tmp_path / "w" / checkpoints(folder)[-1].name).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cannot be read[\s\S]*delete it to resume from the one before"):
        run(examples, tmp_path / "w")


def test_signals_are_left_alone_outside_the_main_thread(examples, tmp_path):
    recipe = Recipe(**{**vars(RECIPE), "epochs": 1})
    found = []
    thread = threading.Thread(target=lambda: found.append(run(examples, tmp_path / "w", recipe)))
    thread.start()
    thread.join()
    assert found[0][1]["images_seen"] == 80
