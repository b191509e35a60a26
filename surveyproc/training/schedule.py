"""Learning rate and length of a training, as pure functions of the images seen."""

from __future__ import annotations

import math


def learning_rate_factor(images_seen: int, images_planned: int, warmup: float) -> float:
    """Linear warm-up over a fraction of the training, then half a cosine down to 0."""
    progress = min(images_seen / max(images_planned, 1), 1.0)
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (progress - warmup) / max(1.0 - warmup, 1e-9)))


def looks_passed(images_seen: int, images_between: float, images_planned: int) -> int:
    """How many looks at the validation split are due by now: one every so many images, and one at the end."""
    due = int(images_seen / images_between + 1e-9)
    return due + 1 if images_seen >= images_planned else due
