"""The recipe: everything that shapes a training besides the data (``train.*`` in the configuration)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from surveyproc.config.run import typed_section
from surveyproc.errors import did_you_mean

CHOICES = {
    "head": ("dirichlet", "fractions", "classes"),
    "finetune": ("full", "partial", "frozen"),
    "balance": ("none", "inverse"),
    "keep": ("best", "last"),
    "device": ("auto", "cpu", "cuda"),
    "precision": ("auto", "bf16", "fp32"),
}
POSITIVE = ("epochs", "batch", "learning_rate", "threads", "validate_every", "clip", "checkpoint_minutes")
FRACTIONS = ("dropout", "ema", "warmup")
NOT_NEGATIVE = (
    "weight_decay",
    "joint",
    "likelihood",
    "classes",
    "shift",
    "brightness",
    "colour",
    "noise",
    "patience",
    "train_blocks",
    "seed",
)
# Settings that never change a weight: a resumed training may have others.
NO_VALUES = ("checkpoint_minutes", "num_workers", "min_workers", "max_failures")


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a training besides the data.

    Attributes
    ----------
    architecture, arguments
        Module of ``surveyproc/models/`` and more arguments of its ``build``.
    encoder, encoder_arguments
        timm model of the trunk; None where the architecture has its own.
    weights : str, optional
        Source of pretrained encoder weights; None starts from fresh ones.
    finetune, train_blocks
        ``full`` trains everything, ``frozen`` the head alone, ``partial`` the head and the encoder's last
        ``train_blocks`` stages.
    layer_decay : float
        Factor of the learning rate from each layer of the encoder to the one before it; 1 is off.
    joint, likelihood, classes : float
        Weights of the loss terms: squared error of joint values, Dirichlet-multinomial negative log likelihood,
        cross entropy of conditional fractions.
    balance : str
        ``inverse`` weights galaxies by how rare their majority answers are.
    validate_every : float
        Epochs between looks at the validation split.
    patience : int
        Looks without a better validation figure after which the training stops; 0 is off.
    keep : str
        Which EMA weights ship: ``best`` by the validation split, or ``last``. ``patience`` implies ``best``.
    """

    architecture: str = "morphology"
    arguments: dict[str, Any] = field(default_factory=dict)
    head: str = "dirichlet"
    encoder: str | None = "resnet18"
    encoder_arguments: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    finetune: str = "full"
    train_blocks: int = 1
    layer_decay: float = 1.0
    dropout: float = 0.3
    epochs: float = 90.0
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    clip: float = 1.0
    ema: float = 0.998
    joint: float = 1.0
    likelihood: float = 0.005
    classes: float = 0.0
    balance: str = "none"
    zoom: float = 1.15
    shift: float = 0.04
    brightness: float = 0.0
    colour: float = 0.0
    noise: float = 0.0
    seed: int = 1
    device: str = "auto"
    threads: int = 1
    precision: str = "auto"
    compile: bool = False
    validate_every: float = 5.0
    patience: int = 0
    keep: str = "last"
    checkpoint_minutes: float = 10.0

    @property
    def keeps_best(self) -> bool:
        """True when the weights of the best validation figure ship."""
        return self.keep == "best" or self.patience > 0

    def problems(self) -> list[str]:
        """Describe values out of range, all of them."""
        found = [f"train.{k}={getattr(self, k)}: must be above 0" for k in POSITIVE if getattr(self, k) <= 0]
        found += [
            f"train.{k}={getattr(self, k)}: must be in [0, 1)"
            for k in FRACTIONS
            if not 0 <= getattr(self, k) < 1
        ]
        found += [
            f"train.{k}={getattr(self, k)}: must not be negative"
            for k in NOT_NEGATIVE
            if getattr(self, k) < 0
        ]
        for name, options in CHOICES.items():
            if (value := getattr(self, name)) not in options:
                hint = did_you_mean(value, options)
                found.append(f"train.{name}={value}: must be one of {', '.join(options)}.{hint}")
        if not 0 < self.layer_decay <= 1:
            found.append(f"train.layer_decay={self.layer_decay}: must be in (0, 1]")
        if self.zoom < 1:
            found.append(f"train.zoom={self.zoom}: is the largest factor, 1 or more")
        if not self.joint + self.likelihood + self.classes > 0:
            found.append(
                "train.joint, train.likelihood and train.classes are all 0: there is nothing to learn"
            )
        if self.finetune == "partial" and self.train_blocks < 1:
            found.append("train.finetune=partial: needs train.train_blocks of 1 or more")
        if self.finetune != "full" and self.weights is None:
            found.append(
                f"train.finetune={self.finetune}: needs train.weights, or random features would be kept as they are"
            )
        return found


def build_recipe(
    values: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> tuple[Recipe, list[str]]:
    """Build a recipe from plain settings.

    Parameters
    ----------
    values : mapping
        ``train.*`` settings; others than the recipe's own are left to the caller.
    defaults : mapping, optional
        What takes the place of a value of a wrong type; the class's defaults otherwise.

    Returns
    -------
    recipe : Recipe
    problems : list of str
        Values of a wrong type or out of range, one line each.
    """
    standard = dataclasses.asdict(Recipe()) | dict(defaults or {})
    names = [f.name for f in dataclasses.fields(Recipe)]
    recipe, problems = typed_section(
        "train", Recipe, {n: values.get(n, standard[n]) for n in names}, {n: standard[n] for n in names}
    )
    return recipe, [*problems, *recipe.problems()]
