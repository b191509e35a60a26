import re

import numpy as np

from surveyproc.report.charts import histogram_svg, patch_map, sky_map
from surveyproc.report.summary import Histogram


def cells_with(*places):
    cells = np.zeros((180, 360), dtype=np.int64)
    for dec, ra, count in places:
        cells[dec + 90, ra] = count
    return cells


def test_a_small_survey_across_ra_0_is_one_patch():
    figure = patch_map(cells_with((10, 358, 5), (10, 359, 5), (11, 0, 5), (11, 2, 5)))
    assert figure.count("<rect") == 4
    assert "RA 358°" in figure
    assert "RA 3°" in figure


def test_a_few_objects_elsewhere_do_not_widen_the_patch():
    assert patch_map(cells_with((0, 100, 95), (0, 300, 5))).count("<rect") == 1


def test_a_wide_survey_has_no_patch():
    assert patch_map(np.ones((180, 360), dtype=np.int64)) == ""


def test_the_whole_sky_is_drawn():
    assert "data:image/png" in sky_map(np.ones((180, 360), dtype=np.int64))


def test_bars_are_proportional_to_counts_and_titles_are_escaped():
    histogram = Histogram()
    histogram.update(np.array([0.01, 0.01, 0.99]))
    svg = histogram_svg(histogram, "<b>")
    heights = [float(h) for h in re.findall(r'<rect [^>]*height="([\d.]+)"', svg)]
    assert heights[0] == 2 * heights[1]
    assert "<b>" not in svg
    assert "no values" in histogram_svg(Histogram(), "x")
