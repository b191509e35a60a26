"""The report as HTML. All text passes through `html.escape`: ids, names and details are not ours."""

from __future__ import annotations

import html
from collections.abc import Iterable
from importlib import resources
from typing import Any

from surveyproc.quality import Quality
from surveyproc.report.charts import histogram_svg, meter, patch_map, sky_map
from surveyproc.report.pictures import Cutout, data_uri
from surveyproc.report.summary import BEST, FAMILIAR, Pick, Summary

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
NAVIGATION = {
    "look": "A look",
    "answers": "Answers",
    "truth": "Truth",
    "triage": "Triage",
    "rejects": "Rejects",
    "catalog": "Its catalog",
    "sky": "Sky",
    "work": "How it ran",
    "next": "What next",
}
OWN_FACTS = {
    "difficulty": "difficulty",
    "domain_distance": "distance",
    "reason": "",
    "detail": "",
    "quality": "",
}
Pictures = dict[int | str, Cutout]


def escape(value: Any) -> str:
    """Make text safe inside HTML and its attributes."""
    return html.escape(str(value), quote=True)


def page(
    title: str, notes: Iterable[str], sections: dict[str, str], navigation: dict[str, str] = NAVIGATION
) -> str:
    """Assemble the whole page.

    Parameters
    ----------
    title : str
        Plain text.
    notes : iterable of str
        Plain texts shown in a box at the top.
    sections : dict of str to str
        Key of ``navigation`` (or ``head``) to HTML; empty ones are left out.
    navigation : dict of str to str
        Key of a section to its heading, in order.

    Returns
    -------
    str
        HTML that refers to nothing outside itself.
    """
    style = resources.files("surveyproc.report").joinpath("style.css").read_text()
    links = "".join(f'<a href="#{k}">{escape(n)}</a>' for k, n in navigation.items() if sections.get(k))
    body = "".join(
        f'<section id="{key}"><h2>{escape(name)}</h2>{sections[key]}</section>'
        for key, name in navigation.items()
        if sections.get(key)
    )
    boxes = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style}</style></head><body><h1>{escape(title)}</h1>{boxes}{sections.get('head', '')}"
        f"<nav>{links}</nav>{body}</body></html>\n"
    )


def tiles(values: dict[str, str]) -> str:
    """Show a few large numbers."""
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><b>{escape(v)}</b><span>{escape(k)}</span></div>' for k, v in values.items()
        )
        + "</div>"
    )


def facts_table(rows: Iterable[tuple[str, Any]]) -> str:
    """Show names and values."""
    lines = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{lines}</table>"


def gallery(picks: Iterable[Pick], pictures: Pictures) -> str:
    """Show picked objects with their id, facts, and truth when the catalog has it."""
    return f'<div class="gallery">{"".join(_tile(pick, pictures) for pick in picks)}</div>'


def look(summary: Summary, pictures: Pictures) -> str:
    """Show objects drawn by a hash of their id."""
    picks = summary.galleries["random"].picks
    lead = '<p class="lead">Drawn by a hash of the id, whatever the model says of them.</p>'
    return lead + gallery(picks, pictures) if picks else ""


def answers(summary: Summary, pictures: Pictures) -> str:
    """Show for each question the distributions of its answers and the surest galaxies of each."""
    parts = [
        f'<p class="lead">Expected fraction of volunteers who would give each answer, where at least half of them '
        f"would be asked; null elsewhere. Below, up to {BEST} galaxies with the highest lower limit of the "
        f"90 % interval for each answer, among those without a quality flaw and with domain_distance up to "
        f"{FAMILIAR:g}.</p>"
    ]
    for question, names in summary.questions.items():
        charts = "".join(histogram_svg(summary.fractions[f"{question}_{a}"], a) for a in names)
        parts.append(f'<h3>{escape(question)}</h3><div class="charts">{charts}</div>')
        for answer in names:
            chosen = summary.galleries.get(f"{question}_{answer}")
            if chosen and chosen.picks:
                parts.append(
                    f"<h3>{escape(question)}: {escape(answer)}</h3>{gallery(chosen.picks, pictures)}"
                )
    return "".join(parts) if summary.questions else ""


def triage(summary: Summary, pictures: Pictures) -> str:
    """Show what deserves a look by a person."""
    if not summary.rows:
        return ""
    charts = histogram_svg(summary.difficulty, "difficulty") + histogram_svg(
        summary.domain_distance, "domain_distance"
    )
    parts = [f'<div class="charts">{charts}</div>']
    for key, title, why in (
        ("uncertain", "Most uncertain", "highest difficulty: the expected votes are spread over the answers"),
        (
            "distant",
            "Farthest from the training set",
            "highest domain_distance, a quantile of the embedding's distance",
        ),
    ):
        picks = summary.galleries[key].picks
        if picks:
            parts.append(f"<h3>{title} <small>{why}</small></h3>{gallery(picks, pictures)}")
    return "".join([*parts, flaws(summary, pictures)])


def flaws(summary: Summary, pictures: Pictures) -> str:
    """Show the quality bits of the rows that were kept."""
    if not summary.flawed:
        return ""
    largest = max(summary.flawed.values())
    meters = "".join(
        meter(flaw_names(value), count, largest, f"{count:,}")
        for value, count in summary.flawed.most_common(20)
    )
    picks = summary.galleries["flawed"].picks
    return f"<h3>Kept with a flaw <small>bits of quality</small></h3>{meters}{gallery(picks, pictures)}"


def flaw_names(value: int) -> str:
    """Name the bits of a ``quality`` value."""
    known = [bit.name or "" for bit in Quality if value & bit]
    rest = value & ~sum(Quality)
    return ", ".join(known + ([f"bits {rest}"] if rest else []))


def rejects(summary: Summary, pictures: Pictures) -> str:
    """Show why rows could not be processed."""
    total = sum(summary.reject_counts.values())
    if not total:
        return "<p>None: every row of the catalog is in the tables.</p>"
    largest = max(summary.reject_counts.values())
    meters = "".join(
        meter(f"{reason} ({stage})", count, largest, f"{count:,}")
        for (stage, reason), count in summary.reject_counts.most_common(20)
    )
    picks = [
        Pick(0.0, row["object_id"], {"reason": row["reason"], "detail": row["detail"]})
        for row in summary.rejects
    ]
    return f"{meters}<h3>The first of them</h3>{gallery(picks, pictures)}"


def sky(summary: Summary) -> str:
    """Show where the objects are."""
    if summary.sky is None or not summary.sky.any():
        return ""
    return sky_map(summary.sky) + patch_map(summary.sky)


def _tile(pick: Pick, pictures: Pictures) -> str:
    cutout = pictures.get(pick.object_id)
    picture = '<div class="none">no picture</div>'
    lines = [f"<b>{escape(pick.object_id)}</b>", *_captions(pick.facts)]
    if cutout is not None:
        rgb, others = cutout
        picture = f'<img loading="lazy" alt="cutout of {escape(pick.object_id)}" src="{data_uri(rgb)}">'
        lines += [
            f"{escape(k.replace('truth_', 'true '))}: {escape(v)}"
            for k, v in others.items()
            if v not in (None, "none")
        ]
    return f"<figure>{picture}<figcaption>{'<br>'.join(lines)}</figcaption></figure>"


def _captions(facts: dict[str, Any]) -> list[str]:
    if "lower" in facts:
        return [f"<b>{facts['fraction']:.2f}</b> ({facts['lower']:.2f} to {facts['upper']:.2f})"]
    own = {k: v for k, v in facts.items() if k in OWN_FACTS and v not in (None, "")}
    likeliest = sorted((v, k) for k, v in facts.items() if k not in OWN_FACTS and v is not None)[-1:]
    if "quality" in own:
        own["quality"] = flaw_names(own["quality"])
    lines = [f"{OWN_FACTS[k]} <b>{v:.2f}</b>" if isinstance(v, float) else escape(v) for k, v in own.items()]
    return lines + [f"{escape(k)} {v:.2f}" for v, k in likeliest]
