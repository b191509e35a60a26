"""The model card of a morphology bundle: what its record says, for people."""

from __future__ import annotations

from typing import Any


def card(record: dict[str, Any]) -> str:
    """Write the model card that the record alone supports, as Markdown."""
    training, metrics, questions = record["training"], record["metrics"], record["outputs"]["vote_schema"]
    counts = ", ".join(f"{n} {split}" for split, n in training["galaxies"].items())
    cites = "\n".join(f"- {c}" for c in record["citation"])
    return f"""# {record["name"]}

Vote fractions of the `{questions["name"]}` tree: {", ".join(q["name"] for q in questions["questions"])}.

| | |
|---|---|
| architecture | {_architecture(record)} |
| input | {record["input"]["size"]} px from the central {record["input"]["crop"]:.0%} of a cutout, stretch {record["input"]["stretch"]}, bands {", ".join(record["input"]["bands"])} |
| trained on | {training["data"]} |
| galaxies | {counts}; split by `{training["split"]}` |
{_history(training)}
| cost | {record["cost"]["ms_per_cutout"]} ms for one cutout with {record["cost"]["views"]} views ({record["cost"]["machine"]}) |
| licence | {record["licence"]} |

## Figures

On the {metrics["n"]} test ids only, {record["inference"]["views"]} views averaged, weights as shipped (half precision), computed in float32:
RMSE of the joint vote fractions (one root over galaxies and answers) **{metrics["rmse"]:.4f}**; predicting the
training mean gives {metrics["rmse_of_the_training_mean"]:.4f}.

{accuracy_table(metrics["questions"])}

n: galaxies where at least half of the volunteers were asked; agreed: those of them where more than 0.8 gave one answer.
Accuracy is of the most voted answer, balanced accuracy its mean over the answers; in brackets, always giving the most common
answer.

{spread_section(record)}

## Cite

{cites}
"""


def accuracy_table(questions: dict[str, dict[str, Any]]) -> str:
    """One row of figures for each question."""
    lines = [
        "| question | RMSE | n | accuracy | balanced | agreed | accuracy | balanced |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, f in questions.items():
        lines.append(
            f"| {name} | {_error(f['rmse'])} | {f['n']} "
            f"| {_beside(f['accuracy'], f['constant_accuracy'])} "
            f"| {_beside(f['balanced_accuracy'], f['constant_balanced_accuracy'])} | {f['n_high_agreement']} "
            f"| {_beside(f['accuracy_high_agreement'], f['constant_high_agreement'])} "
            f"| {_beside(f['balanced_accuracy_high_agreement'], f['constant_balanced_high_agreement'])} |"
        )
    return "\n".join(lines)


def spread_section(record: dict[str, Any]) -> str:
    """Say how honest the intervals are, before and after calibration."""
    fitted, metrics = record["calibration"], record["metrics"]
    raw, calibrated = metrics["coverage"]["raw"], metrics["coverage"]["calibrated"]
    likelihood = metrics["log_likelihood"]
    lines = [
        "| question | scale | galaxies | raw | calibrated | test galaxies | raw | calibrated | 99 % range |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for name, entry in fitted["questions"].items():
        before, after = raw["questions"][name], calibrated["questions"][name]
        low, high = after["range99"] or (None, None)
        lines.append(
            f"| {name} | {entry['scale']:.3f} | {entry['galaxies']} | {_figure(entry['coverage_raw'])} "
            f"| {_figure(entry['coverage'])} | {after['galaxies']} | {_figure(before['coverage'])} "
            f"| {_figure(after['coverage'])} | {_figure(low)}-{_figure(high)} |"
        )
        if "note" in entry:
            notes.append(f"`{name}`: {entry['note']}.")
    lines.append(
        f"| all answers | | | {_figure(fitted['pooled']['coverage_raw'])} | {_figure(fitted['pooled']['coverage'])} "
        f"| {calibrated['pooled']['galaxies']} | {_figure(raw['pooled']['coverage'])} "
        f"| {_figure(calibrated['pooled']['coverage'])} | |"
    )
    return f"""## How honest the intervals are

Share of votes inside the central {fitted["level"]:.0%} interval that the model predicts for them, where a question has at least
{fitted["min_votes"]} votes: the randomised PIT of the mixture of beta-binomials over {record["inference"]["views"]} views x {record["inference"]["draws"]} dropout draws, averaged over its
randomisation. One factor for each question scales the concentrations (no fraction moves); it was found on the
{" and ".join(fitted["splits"])} ids (left columns), none of which trained a weight; validation ids chose among recipes. The right
columns are test ids. 99 % range: where the share of so many independent galaxies would lie.

{chr(10).join(lines)}

Votes are {fitted["votes"]}. {" ".join(notes)}
Log likelihood of the test votes: {likelihood["raw"]:.3f} nats for each galaxy raw, {likelihood["calibrated"]:.3f} calibrated."""


def _history(training: dict[str, Any]) -> str:
    """Rows on how the weights came about: of the one network, or of each member of an ensemble."""
    if members := training.get("members"):
        return "\n".join(
            f"| member `{one['name']}` | {_one_architecture(one['architecture'], one['arguments'])}, {one['input']['size']} px; "
            f"{_seen(one)}, from {_origin(one.get('weights'))}; sha256 {one['weights_sha256'][:12]} |"
            for one in members
        )
    return f"| started from | {_origin(training.get('weights'))} |\n| training | {_seen(training)} |"


def _seen(training: dict[str, Any]) -> str:
    return (
        f"{training['images_seen']} images seen, {training['seconds']} s, seed {training['recipe']['seed']}"
    )


def _architecture(record: dict[str, Any]) -> str:
    if members := record["training"].get("members"):
        return f"`{record['architecture']}` of {len(members)} networks: each is a component of the predicted mixture"
    return _one_architecture(record["architecture"], record["arguments"])


def _one_architecture(architecture: str, arguments: dict[str, Any]) -> str:
    encoder = arguments.get("encoder")
    trunk = f"encoder `{encoder}` {arguments.get('encoder_arguments') or ''}" if encoder else "its own trunk"
    return f"`{architecture}`, {trunk.strip()}, head `{arguments.get('head', 'dirichlet')}`"


def _origin(weights: dict[str, Any] | None) -> str:
    if not weights:
        return "fresh weights"
    return ", ".join(f"{name} {value}" for name, value in weights.items())


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _beside(value: float | None, constant: float | None) -> str:
    return "-" if value is None else f"{value:.3f} ({_figure(constant)})"


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
