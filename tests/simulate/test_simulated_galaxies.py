import numpy as np
import pytest

galsim = pytest.importorskip("galsim", reason="simulating needs the extra 'sim'")

from surveyproc.simulate.recipe import TYPES, draw_recipe  # noqa: E402
from surveyproc.simulate.scene import draw, galaxy, petrosian_r90  # noqa: E402
from surveyproc.simulate.survey import PIXELS, STAMP_R90, simulate_galaxy, simulate_rows  # noqa: E402


@pytest.fixture(scope="module")
def sample():
    return simulate_rows(3, range(150))


def clean(sample, kind):
    pixels, truths = sample
    keep = [k for k, t in enumerate(truths) if t["truth_type"] == kind and t["truth_artifact"] == "none"]
    assert keep, f"no clean {kind} in the sample"
    return [(pixels[k], truths[k]) for k in keep]


def shape_of(light, floor=0.05):
    """Axis ratio, and position angle in degrees, from second moments of the middle of a stamp."""
    rows, columns = np.indices(light.shape) - (light.shape[0] - 1) / 2
    light = np.where((np.hypot(rows, columns) < PIXELS / 4) & (light > floor * light.max()), light, 0)
    covariance = np.cov(np.stack([columns.ravel(), rows.ravel()]), aweights=light.ravel())
    (small, large), axes = np.linalg.eigh(covariance)
    return float(np.sqrt(small / large)), float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1])))


@pytest.fixture(scope="module")
def alone():
    """Recipes, and their galaxies alone, without field, noise and all but a little seeing."""
    drawn = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        recipe = draw_recipe(rng)
        if recipe.type in ("elliptical", "edge-on"):
            scale = recipe.petro_r90_arcsec * STAMP_R90 / PIXELS
            psf = galsim.Gaussian(fwhm=1.5 * scale)
            drawn.append((recipe, shape_of(draw(galaxy(recipe, rng), "r", PIXELS, scale, psf))))
    return drawn


def test_a_galaxy_depends_on_seed_and_index_alone():
    first, truth = simulate_galaxy(3, 17)
    simulate_galaxy(3, 99)
    again, truth_again = simulate_galaxy(3, 17)
    assert first.tobytes() == again.tobytes()
    assert truth == truth_again
    assert simulate_galaxy(4, 17)[0].tobytes() != first.tobytes()


def test_any_subset_reproduces(sample):
    pixels, truths = simulate_rows(3, [140, 5])
    assert np.array_equal(pixels, sample[0][[140, 5]])
    assert truths == [sample[1][140], sample[1][5]]


def test_flux_is_finite_and_stamps_have_the_field_of_view_of_galaxy_zoo():
    cube, truth = simulate_galaxy(0, 0)
    assert cube.shape == (3, PIXELS, PIXELS)
    assert cube.dtype == np.float32
    assert np.isfinite(cube).all()
    assert truth["pixel_scale_arcsec"] * PIXELS == pytest.approx(STAMP_R90 * truth["truth_petro_r90_arcsec"])


def test_every_type_and_some_artifacts_are_there(sample):
    assert {t["truth_type"] for t in sample[1]} == set(TYPES)
    assert {t["truth_artifact"] for t in sample[1]} > {"none"}


def test_edge_on_discs_are_thin_in_the_images(sample):
    ratios = [shape_of(i.astype(float).sum(-1), floor=0.3)[0] for i, _ in clean(sample, "edge-on")]
    assert np.median(ratios) < 0.45


def test_round_ellipticals_are_round_in_the_images(sample):
    images = [i for i, t in clean(sample, "elliptical") if t["truth_axis_ratio"] > 0.85]
    assert np.median([shape_of(i.astype(float).sum(-1), floor=0.3)[0] for i in images]) > 0.85


def test_the_measured_axis_ratio_is_the_truth(alone):
    pairs = [(r.axis_ratio, shape[0]) for r, shape in alone if r.type == "elliptical"]
    truth, measured = np.array(pairs).T
    assert np.corrcoef(truth, measured)[0, 1] > 0.95
    assert all(shape[0] < 0.4 for r, shape in alone if r.type == "edge-on")


def test_the_position_angle_is_that_of_the_image(alone):
    for recipe, (ratio, angle) in alone:
        if ratio < 0.7:
            assert abs((angle - recipe.position_angle + 90) % 180 - 90) < 4, recipe


def test_spirals_are_bluer_than_ellipticals(sample):
    def blue_over_red(kind):
        middle = slice(PIXELS // 2 - 14, PIXELS // 2 + 14)
        values = [i[middle, middle].astype(float).mean((0, 1)) for i, _ in clean(sample, kind)]
        return np.median([v[2] / v[0] for v in values])

    assert blue_over_red("spiral") > 1.25 * blue_over_red("elliptical")


def test_truth_says_only_what_a_type_has(sample):
    for truth in sample[1]:
        if truth["truth_type"] == "elliptical":
            assert truth["truth_inclination"] is None
            assert not truth["truth_has_bar"]
        if truth["truth_type"] == "ring":
            assert truth["truth_has_ring"]
        assert (truth["truth_arms"] > 0) == (truth["truth_type"] == "spiral")
        assert (truth["truth_pitch"] is None) == (truth["truth_type"] != "spiral")


def test_an_unusable_stamp_holds_one_value(sample):
    pixels, truths = sample
    for image, truth in zip(pixels, truths):
        assert (image.min() == image.max()) == (truth["truth_artifact"] == "unusable")


def test_petrosian_radius_of_an_exponential_disc():
    # the growth curve of exp(-r) is known in closed form; its Petrosian radius is found on a fine grid
    def growth(x):
        return 1 - (1 + x) * np.exp(-x)

    x = np.linspace(0.5, 8, 200_001)
    ring = (growth(1.25 * x) - growth(0.8 * x)) / (1.25**2 - 0.8**2)
    petrosian = x[np.argmax(ring < 0.2 * growth(x))]
    expected = x[np.argmax(growth(x) > 0.9 * growth(2 * petrosian))]
    step = 0.05
    rows, columns = (np.indices((400, 400)) - 199.5) * step
    assert petrosian_r90(np.exp(-np.hypot(rows, columns)), step) == pytest.approx(expected, rel=0.01)


def test_the_galaxy_s_light_has_the_magnitude_of_the_recipe():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        recipe = draw_recipe(rng)
        if recipe.type != "merger":  # the companion's light comes on top
            flux = sum(part.flux("r") for part in galaxy(recipe, rng))
            assert 22.5 - 2.5 * np.log10(flux) == pytest.approx(recipe.mag_r, abs=1e-6)
