"""Sampler, fine-tuning modes, loss terms, early stopping's parts: each against what it promises."""

import numpy as np
import pytest
import torch

from surveyproc.cutouts import InputContract
from surveyproc.errors import InputError, UsageError
from surveyproc.training.augment import Augmentation, draw, views_of
from surveyproc.training.objective import objective
from surveyproc.training.optimiser import set_learning_rate, train_mode
from surveyproc.training.recipe import Recipe, build_recipe
from surveyproc.training.sampler import Lanes, Sampler
from surveyproc.training.schedule import looks_passed
from surveyproc.training.state import new_state
from surveyproc.training.world import World
from surveyproc.votes import Question, VoteSchema

SCHEMA = VoteSchema("toy", (Question("a", ("x", "y")), Question("b", ("x", "y"), ("a_x",))))
CONTRACT = InputContract(("R", "G", "B"), size=16)


@pytest.mark.parametrize(("rows", "batch"), [(1000, 64), (320, 32), (97, 8), (50, 50)])
def test_any_number_of_processes_gives_the_same_global_batches(rows, batch):
    lanes = Lanes(rows, batch)
    whole = Sampler(7, lanes, lanes.owned(0, 1))
    for processes in {1, 2, 3, lanes.count} & set(range(1, lanes.count + 1)):
        for seen in (0, batch, 40 * batch):
            parts = []
            for rank in range(processes):
                owned = lanes.owned(rank, processes)
                found = Sampler(7, lanes, owned).rows(seen)
                parts.append(found + lanes.start(owned.start))
            np.testing.assert_array_equal(np.concatenate(parts), whole.rows(seen))


def test_an_epoch_shows_every_example_once_and_epochs_differ():
    lanes = Lanes(640, 64)
    sampler = Sampler(1, lanes, lanes.owned(0, 1))
    epochs = [np.concatenate([sampler.rows(640 * e + 64 * b) for b in range(10)]) for e in range(2)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(640))
    assert list(epochs[0]) != list(epochs[1])
    other = Sampler(2, lanes, lanes.owned(0, 1))
    assert list(other.rows(0)) != list(sampler.rows(0))


def test_batches_and_processes_that_do_not_fit_the_data_are_refused():
    with pytest.raises(InputError, match="10 training examples, fewer than one batch of 16"):
        Lanes(10, 16)
    with pytest.raises(UsageError, match="over 1 processes at most, not 3"):
        Lanes(640, 53).owned(0, 3)


def test_looks_come_every_so_many_images_and_at_the_end():
    due = [looks_passed(seen, 100, 250) for seen in (0, 64, 128, 192, 256)]
    assert due == [0, 0, 1, 1, 3]


@pytest.mark.parametrize(
    ("finetune", "blocks", "trained"),
    [("frozen", 1, []), ("partial", 1, ["layer4"]), ("partial", 2, ["layer3", "layer4"])],
)
def test_what_is_kept_fixed_gets_no_step_and_keeps_its_statistics(monkeypatch, finetune, blocks, trained):
    monkeypatch.setattr(
        "surveyproc.models.encoders.load_pretrained_into", lambda model, source: {"origin": source}
    )
    recipe = Recipe(
        encoder_arguments={"channels": [8, 8, 8, 8]}, weights="mine", finetune=finetune, train_blocks=blocks
    )
    state = new_state(recipe, SCHEMA, CONTRACT)
    assert state.origin == {"origin": "mine"}
    before = {k: v.clone() for k, v in state.model.state_dict().items()}
    train_mode(state.model)
    set_learning_rate(state.optimiser, 0.1)
    state.model(torch.rand(4, 3, 16, 16)).sum().backward()
    state.optimiser.step()
    moved = {k for k, v in state.model.state_dict().items() if not torch.equal(v, before[k])}
    assert {k.split(".")[1] for k in moved if k.startswith("encoder.")} == set(trained)
    assert "classifier.weight" in moved


def test_layer_decay_slows_each_layer_by_its_distance_from_the_head():
    recipe = Recipe(encoder_arguments={"channels": [8, 8, 8, 8]}, layer_decay=0.5)
    state = new_state(recipe, SCHEMA, CONTRACT)
    scale_of = {id(p): g["lr_scale"] for g in state.optimiser.param_groups for p in g["params"]}
    parameters = dict(state.model.named_parameters())
    assert len(scale_of) == len(parameters)
    assert scale_of[id(parameters["classifier.weight"])] == 1
    for name, layers in (("layer4.1.conv1", 1), ("layer4.0.conv1", 2), ("layer3.1.conv1", 3), ("conv1", 9)):
        assert scale_of[id(parameters[f"encoder.{name}.weight"])] == pytest.approx(0.5**layers)
    decay = {id(p): g["weight_decay"] for g in state.optimiser.param_groups for p in g["params"]}
    assert decay[id(parameters["encoder.bn1.weight"])] == 0
    assert decay[id(parameters["encoder.conv1.weight"])] == recipe.weight_decay


def test_a_missing_answer_gives_neither_loss_nor_gradient():
    concentrations = torch.tensor([[3.0, 1.0, 2.0, 5.0]], requires_grad=True)
    joint, counts = torch.tensor([[0.75, 0.25, 0.0, 0.0]]), torch.tensor([[30.0, 10.0, 0.0, 0.0]])
    known = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    recipe = Recipe(joint=1.0, likelihood=0.5, classes=0.1)
    objective(concentrations, joint, counts, known, SCHEMA, recipe).sum().backward()
    assert concentrations.grad[0, 2:].abs().max() == 0
    assert concentrations.grad[0, :2].abs().max() > 0
    only = objective(concentrations, joint, counts, known, SCHEMA, Recipe(likelihood=0.0))
    assert float(only.detach()) == pytest.approx(0.0, abs=1e-12)


def test_brightness_colour_and_noise_change_values_as_they_say():
    canvases = torch.full((64, 3, 32, 32), 100, dtype=torch.uint8)
    drawn = draw(64, 3, torch.Generator().manual_seed(0))

    def views(**how):
        still = Augmentation(zoom=1.0, shift=0.0, **how)
        return views_of(canvases, 16, still, drawn, torch.Generator().manual_seed(1)) * 255 / 100

    assert torch.allclose(views(), torch.ones(1), atol=1e-5)
    bright = views(brightness=0.5).log()
    assert torch.allclose(bright, bright[:, :1, :1, :1].expand_as(bright), atol=1e-5)
    assert 0.45 < float(bright.abs().max()) <= 0.5 + 1e-5
    colour = views(colour=0.5).log()[:, :, 0, 0]
    assert float((colour[:, 0] - colour[:, 1]).abs().max()) > 0.3
    assert float(views(noise=0.1).std()) == pytest.approx(0.255, rel=0.02)


def test_gradients_and_statistics_are_shared_by_all_processes():
    def double(tensor):
        tensor.mul_(2)

    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    model(torch.rand(5, 3)).sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    mean = model[1].running_mean.clone()
    world = World(0, 2, double)
    world.add_gradients(model)
    world.average_buffers(model)
    for parameter, gradient in zip(model.parameters(), gradients):
        torch.testing.assert_close(parameter.grad, 2 * gradient)
    torch.testing.assert_close(model[1].running_mean, mean)
    assert World().any(True)
    assert not World().any(False)


def test_settings_of_a_wrong_type_or_range_are_all_told():
    _, problems = build_recipe({"epochs": "many", "layer_decay": 0, "head": "dirichlt", "finetune": "frozen"})
    text = "\n".join(problems)
    for part in (
        "train.epochs=many: must be float",
        "train.layer_decay=0",
        "Did you mean 'dirichlet'",
        "needs train.weights",
    ):
        assert part in text
