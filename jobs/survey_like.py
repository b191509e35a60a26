"""Make a cutout catalog as a survey would: LSST-like (ugrizy, 0.2 arcsec) or Euclid-like (VIS, Y, J, H, 0.1 arcsec).

Examples
--------
python jobs/survey_like.py --survey lsst --rows 100000 --output lsst.cat --labels lsst.csv
surveyproc train morphology --catalog lsst.cat --labels lsst.csv --id object_id --output lsst-bundle train=multiband \
    train.bands=[u,g,r,i,z,y] train.softening=[9,4,5,9,17,49]
surveyproc run --input lsst.cat --output lsst.run --bundle lsst-bundle

The galaxies are simulated (`surveyproc.simulate.multiband`): a few hundred scenes, observed again and again. Labels are
vote fractions by the type of the galaxy, of the first --label-rows rows, in the columns of the Galaxy Challenge.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa

from surveyproc.catalog import CatalogWriter
from surveyproc.simulate.marker import mark_simulated
from surveyproc.simulate.multiband import SURVEYS, Scenes, draw_scenes, facts, observed

# Smooth, edge-on where featured, odd, round / in-between / cigar by axis ratio is drawn apart, odd feature where odd.
TYPES = {
    "elliptical": (0.86, 0.05, 0.05, 4),
    "lenticular": (0.62, 0.15, 0.08, 4),
    "spiral": (0.12, 0.04, 0.12, 4),
    "edge-on": (0.25, 0.88, 0.15, 6),
    "ring": (0.15, 0.04, 0.75, 0),
    "merger": (0.20, 0.06, 0.85, 5),
    "irregular": (0.25, 0.10, 0.60, 3),
}


def main(words: list[str] | None = None) -> int:
    """Draw scenes, write the catalog and the labels, and say how fast."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--survey", choices=sorted(SURVEYS), required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--pixels", type=int, help="side of a cutout (the survey's own when left out)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", required=True, metavar="CAT")
    parser.add_argument("--labels", metavar="CSV")
    parser.add_argument("--label-rows", type=int, default=3000)
    args = parser.parse_args(words)
    survey, start = SURVEYS[args.survey], time.monotonic()
    survey = replace(survey, pixels=args.pixels or survey.pixels)
    scenes = draw_scenes(survey, min(args.scenes, args.rows), args.seed)
    drawn = time.monotonic()
    write_catalog(args.output, scenes, args.rows, args.seed)
    written = time.monotonic()
    if args.labels:
        write_labels(args.labels, scenes, min(args.rows, args.label_rows))
    size = survey.image.nbytes * args.rows / 1e9
    print(
        f"{args.output}: {args.rows:,} rows of {survey.image.shape} {survey.dtype} ({size:.2f} GB of pixels): "
        f"{len(scenes.light)} scenes in {drawn - start:.1f} s, rows in {written - drawn:.1f} s "
        f"({args.rows / (written - drawn):,.0f}/s)"
    )
    return 0


def write_catalog(output: str, scenes: Scenes, rows: int, seed: int) -> None:
    """Write ``rows`` observations of the scenes."""
    survey = scenes.survey
    with CatalogWriter(output, survey.image, catalog_schema(len(survey.bands))) as writer:
        for pixels, columns in observed(scenes, rows, seed):
            types = [scenes.recipes[n].type for n in columns["scene"]]
            writer.write_pixels(pixels, columns | facts(survey, len(pixels)) | {"truth_type": types})


def catalog_schema(bands: int) -> pa.Schema:
    """The columns beside ``image``."""
    kinds = {"object_id": pa.int64(), "ra": pa.float64(), "dec": pa.float64(), "quality": pa.int32()}
    kinds |= dict.fromkeys(("x0", "y0", "cd11", "cd12", "cd21", "cd22", "pixel_scale_arcsec"), pa.float64())
    kinds |= {"psf_fwhm_arcsec": pa.list_(pa.float32(), bands)}
    kinds |= {"scene": pa.int32(), "magnitude_r": pa.float64(), "truth_type": pa.string()}
    return mark_simulated(pa.schema(list(kinds.items())))


def write_labels(path: str, scenes: Scenes, rows: int) -> None:
    """Write vote fractions of the first rows, scattered as 40 volunteers would."""
    rng = np.random.default_rng(7)
    names = [f"Class{q}.{k}" for q, n in ((1, 3), (2, 2), (6, 2), (7, 3), (8, 7)) for k in range(1, n + 1)]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["object_id", *names])
        for row in range(rows):
            recipe = scenes.recipes[row % len(scenes.recipes)]
            smooth, edge, odd, feature = TYPES[recipe.type]
            roundness = np.array([recipe.axis_ratio**2, 0.3, (1 - recipe.axis_ratio) ** 2]) + 0.02
            features = np.full(7, 0.04)
            features[feature] = 0.76
            first = _votes(rng, [smooth, 0.97 - smooth, 0.03])
            strange = _votes(rng, [odd, 1 - odd])
            joint = [
                *first,
                *(first[1] * _votes(rng, [edge, 1 - edge])),
                *strange,
                *(first[0] * _votes(rng, roundness / roundness.sum())),
                *(strange[0] * _votes(rng, features)),
            ]
            writer.writerow([row + 1, *(f"{value:.6f}" for value in joint)])


def _votes(rng: np.random.Generator, fractions: np.ndarray | list[float]) -> np.ndarray:
    return rng.multinomial(40, np.asarray(fractions) / np.sum(fractions)) / 40


if __name__ == "__main__":
    sys.exit(main())
