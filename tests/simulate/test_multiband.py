"""Survey-like catalogs: six and four bands of flux, known magnitudes, flaws with their bits."""

import numpy as np
import pytest

pytest.importorskip("galsim", reason="simulating needs the extra 'sim'")

from surveyproc.quality import Quality
from surveyproc.simulate.multiband import SURVEYS, draw_scenes, observed


@pytest.fixture(scope="module", params=sorted(SURVEYS))
def scenes(request):
    return draw_scenes(SURVEYS[request.param], 6, seed=3)


def test_the_light_of_a_scene_is_its_magnitude(scenes):
    band = {"lsst": "r", "euclid": "VIS"}[scenes.survey.name]
    light = scenes.light[:, scenes.survey.bands.index(band)].sum((1, 2))
    magnitudes = 31.4 - 2.5 * np.log10(light)
    # The stamp cuts some of the light, VIS is up to 0.27 magnitudes brighter than r, and mergers have a companion.
    alone = np.array([r.type != "merger" for r in scenes.recipes])
    assert alone.sum() > 3
    assert np.abs(magnitudes - [r.mag_r for r in scenes.recipes])[alone].max() < 0.4


def test_rows_do_not_depend_on_how_many_there_are_and_carry_their_flaws(scenes):
    survey = scenes.survey
    batches = list(observed(scenes, 700, seed=4))
    again = next(observed(scenes, 300, seed=4))
    assert np.array_equal(again[0], batches[0][0], equal_nan=True)
    pixels = np.concatenate([p for p, _ in batches])
    quality = np.concatenate([c["quality"] for _, c in batches])
    assert pixels.shape == (700, *survey.image.shape)
    assert pixels.dtype == survey.dtype
    assert np.concatenate([c["object_id"] for _, c in batches]).tolist() == list(range(1, 701))
    holes = ~np.isfinite(pixels).all((1, 2, 3))
    assert np.array_equal(holes, (quality & Quality.NAN_PIXELS) > 0)
    assert 0 < holes.sum() < 30
    blank = (pixels == 0).all((1, 2)).any(1)
    assert np.array_equal(blank, (quality & Quality.MISSING_BAND) > 0)


def test_the_noise_is_that_of_the_depth(scenes):
    survey = scenes.survey
    pixels, columns = next(observed(scenes, 100, seed=5))
    corner = pixels[columns["quality"] == 0][:, :6, :6].astype(float)
    light = scenes.light.reshape(len(scenes.light), len(survey.bands), -1).min(2).max(0)
    found = corner.std(axis=(1, 2)).min(0)
    assert (found < 1.5 * survey.sigma + light).all()
    assert (np.median(corner.std(axis=(1, 2)), 0) > 0.8 * survey.sigma).all()
