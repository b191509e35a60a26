"""The page of an evaluation: reliability diagrams, coverage, accuracies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from surveyproc.report.diagrams import Mark, dot_lines, reliability_svg
from surveyproc.report.page import escape, facts_table, page, tiles
from surveyproc.storage import explain_write_errors

NAVIGATION = {
    "questions": "Questions",
    "accuracy": "Accuracy",
    "reliability": "Reliability",
    "coverage": "Coverage",
    "groups": "Groups",
    "facts": "What was compared",
}
Figures = dict[str, Any]


def write_evaluation(figures: Figures, output: str | Path, run: str, labels: str) -> None:
    """Write the figures of `evaluate.morphology.evaluate_run` as one HTML page that needs nothing beside it.

    Parameters
    ----------
    figures : dict
    output : path
    run, labels : str
        Where they came from, for the page.

    Raises
    ------
    InputError
        When the file cannot be written.
    """
    text = render_evaluation(figures, run, labels)
    with explain_write_errors(str(output)):
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(output).write_text(text, encoding="utf-8")


def render_evaluation(figures: Figures, run: str, labels: str) -> str:
    """Return the page."""
    notes = []
    if figures["split"] == "all":
        notes.append(
            "TRAINING IDS ARE INCLUDED: these figures do not tell how good the bundle is on other galaxies."
        )
    if figures["votes"] != "counts":
        notes.append(f"Votes are {figures['votes']}.")
    sections = {
        "head": _head(figures),
        "questions": _questions(figures),
        "accuracy": _accuracy(figures),
        "reliability": _reliability(figures),
        "coverage": _coverage(figures),
        "groups": _groups(figures) if "groups" in figures else "",
        "facts": _facts(figures, run, labels),
    }
    name = run.rstrip("/").rsplit("/", 1)[-1]
    return page(f"{name} against {labels.rsplit('/', 1)[-1]}", notes, sections, NAVIGATION)


def _head(figures: Figures) -> str:
    low, high = figures["rmse_interval"]
    shown = {
        f"RMSE ({low:.4f} to {high:.4f})": f"{figures['rmse']:.4f}",
        "RMSE of the mean": f"{figures['constant_rmse']:.4f}",
        f"galaxies, {figures['split']} ids": f"{figures['n']:,}",
        "answers": str(figures["columns"]),
    }
    if figures["coverage"]:
        shown["of votes in 90 % intervals"] = _share(figures["coverage"]["pooled"]["coverage"])
        shown["nats per galaxy"] = f"{figures['log_likelihood']['nats_per_galaxy']:.2f}"
    return tiles(shown)


def _questions(figures: Figures) -> str:
    names = (
        "question",
        "RMSE",
        "of the mean",
        "asked",
        "accuracy",
        "balanced",
        "agreed",
        "accuracy",
        "balanced",
        "constant",
        "|fraction - predicted|",
    )
    rows = []
    for name, f in figures["questions"].items():
        cells = [
            _error(f["rmse"]),
            _error(f["constant_rmse"]),
            f"{f['n']:,}",
            _share(f["accuracy"]),
            _share(f["balanced_accuracy"]),
            f"{f['n_high_agreement']:,}",
            _share(f["accuracy_high_agreement"]),
            _share(f["balanced_accuracy_high_agreement"]),
            _share(f["constant_high_agreement"]),
            _share(f["fraction_mae"]),
        ]
        rows.append(_row(name, cells))
    lead = (
        "Asked: galaxies where at least half of the volunteers were asked. Agreed: those of them where more than 0.8 of "
        "the volunteers gave one answer, as in the papers; the columns after it are of these galaxies. Balanced: mean of "
        "the accuracies on the galaxies of each answer. Constant: accuracy of always giving the most common answer."
    )
    return f'<p class="lead">{escape(lead)}</p><table>{_header(names)}{"".join(rows)}</table>'


def _accuracy(figures: Figures) -> str:
    charts = []
    for title, key, interval, constant in (
        ("all galaxies asked", "accuracy", "accuracy_interval", "constant_accuracy"),
        (
            "high agreement",
            "accuracy_high_agreement",
            "accuracy_high_agreement_interval",
            "constant_high_agreement",
        ),
        (
            "high agreement, balanced over answers",
            "balanced_accuracy_high_agreement",
            "balanced_accuracy_high_agreement_interval",
            "constant_balanced_high_agreement",
        ),
    ):
        marks = [
            Mark(name, f[key], f[interval], f[constant])
            for name, f in figures["questions"].items()
            if f[key] is not None
        ]
        if marks:
            charts.append(dot_lines(title, marks, low=0.0, high=1.0))
    lead = (
        "Dots with the 95 % interval of resampled galaxies; the dash is always giving the most common answer."
    )
    return f'<p class="lead">{lead}</p><div class="charts">{"".join(charts)}</div>'


def _reliability(figures: Figures) -> str:
    charts = "".join(reliability_svg(q, f["reliability"]) for q, f in figures["questions"].items())
    lead = (
        "Mean fraction that volunteers gave, in bins of the predicted fraction, over the answers of the galaxies where at "
        "least half were asked; on the line the fractions mean what they say. Bars: how many answers, on a square-root "
        "scale."
    )
    return f'<p class="lead">{lead}</p><div class="charts">{charts}</div>'


def _coverage(figures: Figures) -> str:
    found = figures["coverage"]
    if not found:
        return ""
    entries = [("all answers", found["pooled"]), *found["questions"].items()]
    marks = [
        Mark(f"{name} ({e['galaxies']:,})", e["coverage"], e["range99"], None)
        for name, e in entries
        if e["coverage"] is not None
    ]
    smallest = min([0.6, *(m.value - 0.05 for m in marks), *(m.interval[0] for m in marks if m.interval)])
    lead = (
        f"Share of votes inside the central 90 % interval that the run predicts for them, where a question has at least "
        f"{found['min_votes']} votes (galaxies in brackets). Bars: where 99 % of honest predictions would lie, were each "
        f"galaxy one independent trial."
    )
    chart = dot_lines(
        "coverage of 90 % intervals", marks, low=max(0.0, smallest), high=1.0, line=found["level"]
    )
    return f'<p class="lead">{escape(lead)}</p><div class="charts">{chart}</div>'


def _groups(figures: Figures) -> str:
    by, questions = figures["by"], list(figures["questions"])
    rows = [
        _row(
            f"{g['low']:.4g} to {g['high']:.4g}",
            [
                f"{g['n']:,}",
                f"{g['rmse']:.4f}",
                _share(g["coverage"]["pooled"]["coverage"]) if g["coverage"] else "-",
                *(_share(g["questions"][q]["accuracy"]) for q in questions),
            ],
        )
        for g in figures["groups"]
    ]
    marks = [
        Mark(f"{g['low']:.4g} to {g['high']:.4g}", g["rmse"], None, g["constant_rmse"])
        for g in figures["groups"]
    ]
    most = max(max(m.value, m.constant or 0) for m in marks)
    chart = dot_lines(f"RMSE by {by['column']}", marks, low=0.0, high=1.1 * most)
    lead = (
        f"Bins of {by['column']} (from the {by['found_in']}) with nearly equal numbers of galaxies; {by['without']} have "
        f"no value. Accuracy of each question over all galaxies asked; the dash is the RMSE of the group's mean."
    )
    header = _header((by["column"], "galaxies", "RMSE", "covered", *questions))
    return (
        f'<p class="lead">{escape(lead)}</p><table>{header}{"".join(rows)}</table>'
        f'<div class="charts">{chart}</div>'
    )


def _facts(figures: Figures, run: str, labels: str) -> str:
    ids, answers = figures["ids"], figures["answers"]
    return facts_table(
        [
            ("run", run),
            ("labels", labels),
            ("split", figures["split"]),
            (
                "ids",
                f"{ids['matched']:,} in both, {ids['only_in_run']:,} only in the run, {ids['only_in_labels']:,} only in the labels",
            ),
            ("answers", f"{answers['compared']} compared"),
            ("only in the labels", ", ".join(answers["only_in_labels"]) or "none"),
            ("only in the run", ", ".join(answers["only_in_run"]) or "none"),
            ("votes", figures["votes"]),
            ("votes needed", figures["min_votes"]),
        ]
    )


def _header(names: tuple[str, ...]) -> str:
    return f"<tr>{''.join(f'<th>{escape(n)}</th>' for n in names)}</tr>"


def _row(name: str, cells: list[str]) -> str:
    return f"<tr><td>{escape(name)}</td>{''.join(f'<td class=n>{escape(c)}</td>' for c in cells)}</tr>"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
