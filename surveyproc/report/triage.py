"""The page of a triage: how accurate the answers are that the model may decide."""

from __future__ import annotations

from typing import Any

from surveyproc.report.diagrams import curve_svg
from surveyproc.report.page import escape, page, tiles

NAVIGATION = {"curves": "Expected accuracy", "table": "At some agreements"}
SHOWN = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9)
LEAD = (
    "An answer's agreement is 1 - H(p) / log n of the expected vote fractions p of its question's n answers (Dieleman et "
    "al. 2015): 0 when all are alike, 1 when one has all votes. Answers with at least the stated agreement are taken from "
    "the model; the others go to experts. The expected accuracy is the mean probability, under each galaxy's Dirichlet "
    "distribution, that the model's answer is the majority's."
)


def render_triage(summary: dict[str, Any], curves: dict[str, list[dict[str, Any]]], run: str) -> str:
    """Return the page as HTML that refers to nothing outside itself.

    Parameters
    ----------
    summary : dict
        ``agreement``, ``confident``, ``experts`` (numbers of answers), ``expected_accuracy``, ``split``.
    curves : dict
        `evaluate.triage.Triage.curves`.
    run : str
        The run.
    """
    expected = summary["expected_accuracy"]
    shown = {
        f"answers with agreement of {summary['agreement']:g} or more": f"{summary['confident']:,}",
        "for experts": f"{summary['experts']:,}",
        "expected accuracy of the confident": "-" if expected is None else f"{expected:.3f}",
    }
    charts = "".join(_chart(name, curve, summary["split"]) for name, curve in curves.items())
    sections = {
        "head": tiles(shown),
        "curves": f'<p class="lead">{escape(LEAD)}</p><div class="charts">{charts}</div>',
        "table": _table(curves),
    }
    return page(f"Triage of {run.rstrip('/').rsplit('/', 1)[-1]}", [], sections, NAVIGATION)


def _chart(name: str, curve: list[dict[str, Any]], split: str | None) -> str:
    series = {
        "expected": [(p["kept"], p["expected_accuracy"]) for p in curve if p["expected_accuracy"] is not None]
    }
    if any("measured" in p for p in curve):
        series[f"measured on {split} ids"] = [
            (p["measured"]["kept"], p["measured"]["accuracy"])
            for p in curve
            if p["measured"]["accuracy"] is not None
        ]
    return curve_svg(name, series, "share of the answers kept", "accuracy")


def _table(curves: dict[str, list[dict[str, Any]]]) -> str:
    measured = any("measured" in p for curve in curves.values() for p in curve)
    head = ["question", "agreement", "kept", "expected accuracy"]
    head += ["labelled", "measured accuracy", "expected of these"] if measured else []
    rows = []
    for name, curve in curves.items():
        for point in (p for p in curve if p["agreement"] in SHOWN):
            cells = [f"{point['agreement']:g}", f"{point['kept']:.3f}", _share(point["expected_accuracy"])]
            if measured:
                m = point["measured"]
                cells += [f"{m['n']:,}", _share(m["accuracy"]), _share(m["expected_accuracy"])]
            numbers = "".join(f"<td class=n>{cell}</td>" for cell in cells)
            rows.append(f"<tr><td>{escape(name)}</td>{numbers}</tr>")
    return f"<table><tr>{''.join(f'<th>{h}</th>' for h in head)}</tr>{''.join(rows)}</table>"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
