"""What the model says of each true type, for catalogs of simulated galaxies."""

from __future__ import annotations

import html

import pyarrow.dataset as ds

from surveyproc.catalog import Catalog
from surveyproc.catalog.storage import arrow_filesystem, locate_file
from surveyproc.runs.run import Run

COLUMN = "truth_type"
LEAD = (
    "Mean expected fraction, given that the question is asked, by the type that was drawn. The model learnt "
    "from real galaxies: this shows that the demo makes sense and measures nothing about real ones."
)


def truth_table(run: Run, catalog: Catalog, questions: dict[str, list[str]]) -> str:
    """Tabulate the mean answers by true type.

    Parameters
    ----------
    run : Run
        With the table ``morphology_posterior``.
    catalog : Catalog
        Simulated, so a million rows at most.
    questions : dict of str to list of str
        Answers of each question; the first question is shown whole, of the others the answer ``yes``.

    Returns
    -------
    str
        HTML, empty when there is nothing to compare.
    """
    if COLUMN not in catalog.schema.names or "morphology_posterior" not in run.tables:
        return ""
    first = next(iter(questions), "")
    shown = [f"{q}_{a}" for q, answers in questions.items() for a in answers if q == first or a == "yes"]
    names = [f"{name}_mean" for name in shown]
    paths = [locate_file(catalog.uri, file.path) for file in catalog.files]
    truth = ds.dataset([p for _, p in paths], filesystem=arrow_filesystem(paths[0][0]), format="parquet")
    said = run.table("morphology_posterior", ["object_id", *names])
    joined = said.join(truth.to_table(columns=["object_id", COLUMN]), "object_id", join_type="inner")
    groups = joined.group_by(COLUMN).aggregate([(n, "mean") for n in names] + [("object_id", "count")])
    rows = "".join(
        f"<tr><td>{html.escape(str(row[COLUMN]))}</td><td class=n>{row['object_id_count']:,}</td>"
        + "".join(
            f'<td class="n heat" style="--v:{row[f"{n}_mean"]:.3f}">{row[f"{n}_mean"]:.2f}</td>'
            for n in names
        )
        + "</tr>"
        for row in groups.sort_by(COLUMN).to_pylist()
    )
    head = "".join(f"<th>{html.escape(name.replace('_', ': '))}</th>" for name in shown)
    return f'<p class="lead">{LEAD}</p><table class="heat"><tr><th>true type</th><th>n</th>{head}</tr>{rows}</table>'
