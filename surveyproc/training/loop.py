"""The training loop of the morphology models: a plain loop over one small state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
import torch

from surveyproc.cutouts import InputContract
from surveyproc.errors import ResourceError, UsageError
from surveyproc.images.views import normalise
from surveyproc.inference.settings import resolve_device, resolve_precision
from surveyproc.training.augment import Augmentation, draw
from surveyproc.training.examples import Examples
from surveyproc.training.feed import Feed
from surveyproc.training.losses import class_weights
from surveyproc.training.objective import objective
from surveyproc.training.optimiser import set_learning_rate, train_mode
from surveyproc.training.predict import joint_rmse, predict
from surveyproc.training.recipe import Recipe
from surveyproc.training.sampler import Lanes, Sampler, key
from surveyproc.training.schedule import learning_rate_factor, looks_passed
from surveyproc.training.signals import stop_requests
from surveyproc.training.state import State, averaged, model_arguments, new_state, update_average
from surveyproc.training.workspace import Memory
from surveyproc.training.world import World
from surveyproc.votes import VoteSchema
from surveyproc.votes.metrics import known_joint

__all__ = ["Recipe", "joint_rmse", "learning_rate_factor", "model_arguments", "predict", "train"]

LOG_STEPS = 50
QUIET_SECONDS = 60.0
CHECK_STEPS = 16  # steps between what costs a wait: for other processes, or for a GPU
VIEWS, DROPOUT = 0, 1  # purposes of random numbers; each process draws its own dropout


class Keeper(Protocol):
    """Where a training keeps what it must not lose; see `training.workspace`."""

    def restore(self, state: State) -> None:
        """Bring a fresh state to the latest checkpoint, if there is one."""

    def log(self, line: dict[str, float]) -> None:
        """Keep a line of metrics."""

    def save(self, state: State) -> None:
        """Keep a checkpoint."""

    def save_best(self, state: State) -> None:
        """Keep the averaged weights of this look."""

    def best_weights(self, state: State) -> dict[str, torch.Tensor]:
        """Give the averaged weights of the best look."""


def train(
    training: Examples,
    validation: Examples,
    schema: VoteSchema,
    contract: InputContract,
    recipe: Recipe,
    say: Callable[[str], None] = lambda line: None,
    *,
    keeper: Keeper | None = None,
    world: World | None = None,
    sampler: Sampler | None = None,
    answer_weights: torch.Tensor | None = None,
    asked: Callable[[], bool] = lambda: False,
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Train one of ``world.size`` processes; by default the only one.

    Every random number is drawn from the seed and the images seen, so that a training that is resumed from a
    checkpoint goes on exactly as it would have.

    Parameters
    ----------
    training, validation : Examples
        This process's part: canvases of the lanes it owns, prepared views of its share of the validation split.
    keeper : Keeper, optional
        A `training.workspace.Workspace`; without one nothing is kept.
    sampler : Sampler, optional
        Which rows of ``training`` are in which batch; needed when it is a part of the split.
    answer_weights : torch.Tensor, optional
        ``(K,)`` for ``balance=inverse``; needed when ``training`` is a part of the split.
    asked : callable
        Tells whether to stop at the next step, as a signal does.

    Returns
    -------
    model : torch.nn.Module
        The averaged weights that ship, in evaluation mode, on the CPU.
    log : dict
        ``recipe``, ``images_seen``, ``seconds``, ``validation`` (looks: images seen and RMSE), ``best``.

    Raises
    ------
    ResourceError
        When a gradient is not a number.
    KeyboardInterrupt
        After a checkpoint, when the process was asked to stop.
    """
    world, keeper = world or World(), keeper or Memory()
    device, precision = hardware(recipe)
    torch.set_num_threads(recipe.threads)
    if sampler is None:
        lanes = Lanes(len(training.joint), recipe.batch)
        sampler = Sampler(recipe.seed, lanes, lanes.owned(0, 1))
        if recipe.balance == "inverse":
            answer_weights = class_weights(training.joint.numpy(), schema)
    state = new_state(recipe, schema, contract, device)
    keeper.restore(state)
    require_same_hardware(state, f"{device} {precision}")
    loop = _Loop(
        state, recipe, schema, contract, world, keeper, say, device, precision, sampler, answer_weights
    )
    gpus = [torch.cuda.current_device()] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=gpus), stop_requests() as signalled:
        feed = Feed(training, schema, device)
        loop.run(feed, validation, lambda: signalled.is_set() or asked())
    return outcome(state, keeper, recipe, schema, contract)


def outcome(
    state: State, keeper: Keeper, recipe: Recipe, schema: VoteSchema, contract: InputContract
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Model and log of a training that has ended; see `train`."""
    device, precision = state.hardware.split()
    log = {
        "recipe": asdict(recipe) | {"precision": precision, "device": device},
        "images_seen": state.images_seen,
        "seconds": round(state.seconds),
        "validation": state.looks,
        "best": state.best,
        "stopped_early": state.stopped,
        "weights": state.origin,
    }
    weights = keeper.best_weights(state) if recipe.keeps_best else state.ema
    return averaged(weights, recipe, schema, contract), log


def planned_images(recipe: Recipe, rows: int) -> int:
    """Images after which a training ends."""
    return round(recipe.epochs * rows)


def hardware(recipe: Recipe) -> tuple[str, str]:
    """Resolve device and precision, or refuse what is not there."""
    try:
        device = resolve_device(recipe.device)
        return device, resolve_precision(recipe.precision, device)
    except ResourceError as error:
        where, fix = (text.replace("engine.", "train.") for text in (error.where, error.fix))
        raise ResourceError(error.what, where=where, fix=fix) from error


def require_same_hardware(state: State, here: str) -> None:
    """Refuse to go on in another precision or on another kind of device than before.

    Raises
    ------
    UsageError
    """
    if state.hardware not in ("", here):
        device, precision = state.hardware.split()
        raise UsageError(
            f"the training was begun with {state.hardware}; here it would go on with {here}",
            where="train.device, train.precision",
            fix=f"use train.device={device} train.precision={precision} on a machine that has them, or --overwrite",
        )
    state.hardware = here


class _Loop:
    """The parts of `train` that share what it was given."""

    def __init__(
        self,
        state: State,
        recipe: Recipe,
        schema: VoteSchema,
        contract: InputContract,
        world: World,
        keeper: Keeper,
        say: Callable[[str], None],
        device: str,
        precision: str,
        sampler: Sampler,
        weights: torch.Tensor | None,
    ) -> None:
        self.state, self.recipe, self.schema, self.contract = state, recipe, schema, contract
        self.world, self.keeper, self.say, self.device = world, keeper, say, device
        self.bf16, self.sampler = precision == "bf16", sampler
        self.weights = None if weights is None else weights.to(device)
        rows = sampler.lanes.rows
        self.planned = planned_images(recipe, rows)
        self.between_looks = recipe.validate_every * rows
        self.forward = torch.compile(state.model) if recipe.compile else state.model
        self.augmentation = Augmentation(
            recipe.zoom, recipe.shift, True, recipe.brightness, recipe.colour, recipe.noise
        )
        self.losses: list[torch.Tensor] = []
        self.norms: list[torch.Tensor] = []
        self.progress, self.said = "", time.monotonic()

    def run(self, feed: Feed, validation: Examples, asked: Callable[[], bool]) -> None:
        """Step, look, log and keep until the end."""
        train_mode(self.state.model)
        state, kept, logged = self.state, time.monotonic(), (time.monotonic(), self.state.images_seen)
        while state.images_seen < self.planned and not state.stopped:
            began = time.monotonic()
            before = looks_passed(state.images_seen, self.between_looks, self.planned)
            self.step(feed)
            look = looks_passed(state.images_seen, self.between_looks, self.planned) > before
            if look or state.steps % LOG_STEPS == 0:
                logged = self.log_training(logged)
            if look:
                self.look(validation)
            state.seconds += time.monotonic() - began
            due, stop = look, False
            if self.world.size == 1 or state.steps % CHECK_STEPS == 0:
                due = due or self.world.any(time.monotonic() - kept > 60 * self.recipe.checkpoint_minutes)
                stop = self.world.any(asked())
            if due or stop:
                self.require_finite()
                self.gather_losses()
                self.keeper.save(state)
                kept = time.monotonic()
            if stop:
                raise KeyboardInterrupt

    def step(self, feed: Feed) -> None:
        """Take one step on this process's part of the next global batch."""
        state, recipe, batch = self.state, self.recipe, self.sampler.lanes.batch
        seen = state.images_seen
        rows = self.sampler.rows(seen)
        joint, counts, known = feed.targets(rows)
        generator = torch.Generator().manual_seed(key(recipe.seed, seen, VIEWS))
        drawn = draw(batch, len(self.contract.bands), generator)[self.sampler.places]
        noise = generator.manual_seed(key(recipe.seed, seen, VIEWS) + 1 + self.world.rank)
        views = feed.views(rows, self.contract.size, self.augmentation, drawn, noise)
        views = normalise(views, self.contract)
        torch.manual_seed(key(recipe.seed, seen, DROPOUT + self.world.rank))
        factor = learning_rate_factor(seen + batch, self.planned, recipe.warmup)
        set_learning_rate(state.optimiser, recipe.learning_rate * factor)
        with self.autocast():
            concentrations = self.forward(views.contiguous(memory_format=torch.channels_last))
        losses = objective(concentrations, joint, counts, known, self.schema, recipe, self.weights)
        loss = losses.sum() / batch
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.world.add_gradients(state.model)
        norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), recipe.clip)
        self.losses.append(loss.detach())
        self.norms.append(norm)
        if self.device == "cpu" or len(self.norms) >= CHECK_STEPS:
            self.require_finite()
        state.optimiser.step()
        self.world.average_buffers(state.model)
        state.images_seen += batch
        state.steps += 1
        update_average(state, recipe.ema)

    def look(self, validation: Examples) -> None:
        """Judge the averaged weights on the validation split."""
        state = self.state
        model = averaged(state.ema, self.recipe, self.schema, self.contract, self.device)
        predicted = predict(model, validation.pixels, self.schema)
        target = known_joint(validation.joint.double().numpy(), self.schema)
        errors = (predicted.double().numpy() - target)[np.isfinite(target)]
        sums = torch.tensor([float((errors**2).sum()), errors.size, len(target)], dtype=torch.float64)
        self.world.add(sums)
        total, values, galaxies = sums.tolist()
        look = {"images_seen": state.images_seen, "rmse": round(math.sqrt(total / values), 5)}
        state.looks.append(look)
        if state.best is None or look["rmse"] < state.best["rmse"]:
            state.best = look
            if self.recipe.keeps_best:
                self.keeper.save_best(state)
        behind = len(state.looks) - 1 - state.looks.index(state.best)
        state.stopped = 0 < self.recipe.patience <= behind
        self.keeper.log({"images_seen": state.images_seen, "validation/rmse": look["rmse"]})
        self.tell(f"  validation RMSE {look['rmse']:.4f} (n={galaxies:.0f}), best {state.best['rmse']:.4f}")
        if state.stopped:
            self.say(f"no better validation figure in {behind} looks: stopped")

    def log_training(self, since: tuple[float, int]) -> tuple[float, int]:
        """Write a line of metrics about the steps since the last one."""
        self.require_finite()
        self.gather_losses()
        state, now = self.state, time.monotonic()
        loss = state.pending[0] / state.pending[1]
        rate = (state.images_seen - since[1]) / max(now - since[0], 1e-9)
        factor = learning_rate_factor(state.images_seen, self.planned, self.recipe.warmup)
        self.keeper.log(
            {
                "images_seen": state.images_seen,
                "train/loss": round(loss, 6),
                "train/learning_rate": self.recipe.learning_rate * factor,
                "train/images_per_s": round(rate, 1),
                "train/seconds": round(state.seconds, 1),
            }
        )
        self.progress = f"images {state.images_seen}/{self.planned}  loss {loss:.4f}  {rate:.0f} images/s  {state.seconds:.0f} s"
        if now - self.said > QUIET_SECONDS:
            self.tell("")
        state.pending = []
        return now, state.images_seen

    def tell(self, figure: str) -> None:
        """Say how far the training is."""
        self.say(self.progress + figure)
        self.said = time.monotonic()

    def gather_losses(self) -> None:
        """Add the losses of all processes to those not yet logged: their sum, and how many steps."""
        sums = torch.stack([*self.losses, torch.zeros((), device=self.device)]).double().sum().cpu()[None]
        self.world.add(sums)
        before = self.state.pending or [0.0, 0]
        self.state.pending = [before[0] + float(sums[0]), before[1] + len(self.losses)]
        self.losses.clear()

    def require_finite(self) -> None:
        """Stop before weights that are not numbers are kept."""
        # Seen with bf16 convolutions of oneDNN on 1 x 1 pixel maps: the weights are lost from here on.
        if self.norms and not bool(torch.isfinite(torch.stack(self.norms)).all()):
            raise ResourceError(
                f"the gradient is not a number after {self.state.images_seen} images",
                fix="train with train.precision=fp32, a lower train.learning_rate, or a larger train.size",
            )
        self.norms.clear()

    def autocast(self) -> AbstractContextManager[None]:
        """Compute in the recipe's precision."""
        return torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self.bf16)
