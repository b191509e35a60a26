"""Flux that the engine stretches gives the tables of a catalog that was stretched before."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from drive import assert_same_tables, run_here, tables_of
from toys import SIZE, toy_bundle

from surveyproc.catalog import CatalogWriter
from surveyproc.cutouts import ImageSpec, InputContract
from surveyproc.errors import InputError, PartialError, UsageError
from surveyproc.images.inputs import BundleInput, complete, mismatches
from surveyproc.images.stretches import find_stretch, stretched, stretched_spec
from surveyproc.inference.engine import Engine
from surveyproc.inference.settings import EngineSettings
from surveyproc.models.bundle import open_bundle

ROWS = 40
FLUX = ImageSpec("raw", (24, 24, 4), "float32", bands=("z", "g", "r", "i"), unit="nJy", stretch="none")


def flux_pixels() -> np.ndarray:
    """Blobs in nJy, faint and bright, on noise."""
    rng = np.random.default_rng(5)
    grid = np.mgrid[:24, :24] - 11.5
    blob = np.exp(-(grid**2).sum(0) / rng.uniform(4, 40, (ROWS, 1, 1)))[..., None]
    peaks = 10 ** rng.uniform(2, 4.5, (ROWS, 1, 1, 1)) * rng.uniform(0.3, 1.5, (ROWS, 1, 1, 4))
    return (blob * peaks + rng.normal(0, 40, (ROWS, 24, 24, 4))).astype(np.float32)


def write(path, pixels, spec, scale=None, quality=None):
    columns = {"object_id": pa.array(range(ROWS))}
    columns |= {} if scale is None else {"pixel_scale_arcsec": pa.array(scale, from_pandas=True)}
    columns |= {} if quality is None else {"quality": pa.array(quality, pa.int32())}
    schema = pa.schema([(name, column.type) for name, column in columns.items()])
    with CatalogWriter(path, spec, schema, row_group_bytes=10 * spec.nbytes) as writer:
        writer.write_pixels(pixels, columns)
    return path


def bundle_for(path, contract):
    """An untrained bundle with this input."""
    toy_bundle(path, name=path.name, bands=contract.bands)
    record = json.loads((path / "model.json").read_text())
    (path / "model.json").write_text(json.dumps(record | {"input": contract.to_dict()}))
    return path


CASES = {
    "legacy_lupton": (("R", "G", "B"), {"q": 30}),
    "sdss_lupton": (("R", "G", "B"), {}),
    "gz_decals": (("R", "G", "B"), {}),
    "asinh_percentile": (("g", "z"), {"percent": 99.0}),
}


def engine_tables(bundle, image, pixels, columns):
    """Tables of one batch."""
    keys = pa.schema([("object_id", pa.int64())])
    engine = Engine([open_bundle(str(bundle))], EngineSettings(batch_size=ROWS), image, keys)
    return engine(pa.record_batch(columns), pixels, {})


@pytest.mark.parametrize("name", CASES)
def test_flux_and_stretched_pixels_give_the_same_tables(name, tmp_path):
    bands, parameters = CASES[name]
    contract = InputContract(bands, SIZE, crop=0.7, stretch=name, stretch_parameters=parameters, mean=0.1)
    bundle = bundle_for(tmp_path / "toy", complete(contract, FLUX))
    pixels, scale = flux_pixels(), np.linspace(0.2, 0.5, ROWS)
    columns = {"object_id": pa.array(range(ROWS)), "pixel_scale_arcsec": pa.array(scale)}
    stretch = find_stretch(name, parameters)
    if stretch.bands is None:
        stretch = find_stretch(name, parameters | {"bands": bands})
    made = stretched(pixels, FLUX, stretch, scale)
    assert made.std() > 10
    found = engine_tables(bundle, FLUX, pixels, columns)
    expected = engine_tables(bundle, stretched_spec(FLUX, stretch), made, columns)
    assert_same_tables(found, expected)


def test_a_run_on_flux_is_a_run_on_the_stretched_catalog_and_quality_is_in_every_table(tmp_path):
    bundle = bundle_for(tmp_path / "toy", InputContract(("R", "G", "B"), SIZE, stretch="sdss_lupton"))
    pixels, scale = flux_pixels(), np.linspace(0.2, 0.5, ROWS)
    pixels[3, 5, 6, 1] = np.nan
    quality = np.where(np.arange(ROWS) == 3, 2, 0)
    quality[7] = 33
    stretch = find_stretch("sdss_lupton")
    write(tmp_path / "flux.cat", pixels, FLUX, scale, quality)
    made = stretched(pixels, FLUX, stretch, scale)
    write(tmp_path / "bytes.cat", made, stretched_spec(FLUX, stretch), scale, quality)
    for kind in ("flux", "bytes"):
        run_here(tmp_path / f"{kind}.cat", tmp_path / f"{kind}.run", bundle)
    found, expected = (tables_of(tmp_path / f"{kind}.run") for kind in ("flux", "bytes"))
    assert_same_tables(found, expected)
    for table in ("morphology", "morphology_posterior", "embeddings"):
        assert found[table]["quality"].to_pylist() == quality.tolist(), table
    described = found["embeddings"].schema.field("quality").metadata[b"description"]
    assert b"1 EDGE, 2 NAN_PIXELS" in described


def test_a_row_that_does_not_say_its_pixel_scale_is_a_reject_where_the_stretch_needs_it(tmp_path):
    contract = InputContract(("R", "G", "B"), SIZE, stretch="sdss_lupton")
    bundle = bundle_for(tmp_path / "toy", contract)
    scale = np.full(ROWS, 0.3)
    scale[4] = np.nan
    write(tmp_path / "flux.cat", flux_pixels(), FLUX, scale, np.full(ROWS, 1))
    run_here(tmp_path / "flux.cat", tmp_path / "out.run", bundle, "limits.max_reject_fraction=0.1")
    tables = tables_of(tmp_path / "out.run")
    rejects = tables["rejects"].select(["object_id", "stage", "reason", "quality"]).to_pylist()
    assert rejects == [{"object_id": 4, "stage": "pixels", "reason": "no_pixel_scale", "quality": 1}]
    assert len(tables["morphology"]) == ROWS - 1
    write(tmp_path / "bare.cat", flux_pixels(), FLUX)
    with pytest.raises(InputError, match="no column pixel_scale_arcsec"):
        run_here(tmp_path / "bare.cat", tmp_path / "bare.run", bundle)
    with pytest.raises(PartialError, match="no_pixel_scale"):
        run_here(tmp_path / "bare.cat", tmp_path / "bare.run", bundle, force_domain=True)


def test_flux_of_another_unit_is_converted_to_the_bundle_s(tmp_path):
    contract = InputContract(("g", "r"), SIZE, stretch="none", softening=(30.0, 20.0), unit="nJy")
    bundle = bundle_for(tmp_path / "toy", contract)
    counts = replace(FLUX, unit="count", zeropoint=31.4 - 2.5 * np.log10(4.0))
    columns, pixels = {"object_id": pa.array(range(ROWS))}, flux_pixels()
    one = engine_tables(bundle, FLUX, pixels, columns)["morphology_posterior"]
    two = engine_tables(bundle, counts, pixels / 4, columns)["morphology_posterior"]
    for column in one.column_names[2:]:
        np.testing.assert_allclose(one[column].to_numpy(), two[column].to_numpy(), rtol=1e-3)


RGB = InputContract(("R", "G", "B"), 16, stretch="legacy_lupton")
STORED = ImageSpec("raw", (9, 9, 3), "uint8", stretch="legacy_lupton")
PLAIN = InputContract(("g", "r"), 16, stretch="none", unit="nJy")


@pytest.mark.parametrize(
    ("contract", "image", "said"),
    [
        (RGB, FLUX, None),
        (RGB, STORED, None),
        (RGB, replace(STORED, stretch_parameters={"q": 20, "m": 0.03}), None),
        (
            RGB,
            replace(STORED, stretch_parameters={"q": 21}),
            "legacy_lupton was made with q=21; the bundle was trained on 20",
        ),
        (RGB, replace(STORED, stretch_version=2), "made by version 2 of legacy_lupton"),
        (
            RGB,
            replace(STORED, stretch="ssl_legacysurvey"),
            "stretch is ssl_legacysurvey; the bundle needs legacy_lupton",
        ),
        (RGB, replace(STORED, stretch="display"), "stretch is display; the bundle needs legacy_lupton"),
        (RGB, replace(FLUX, unit=None), "the unit of the flux is not known (none is stated)"),
        (RGB, replace(FLUX, unit="count"), "the unit of the flux is not known (unit 'count')"),
        (
            RGB,
            replace(FLUX, bands=("u", "g", "r", "i")),
            "there is no band z, which the stretch legacy_lupton needs",
        ),
        (InputContract(("g",), 16, stretch="asinh_percentile"), replace(FLUX, unit=None), None),
        (InputContract(("R", "G", "B"), 16, stretch="mine"), replace(STORED, stretch="mine"), None),
        (InputContract(("R", "G", "B"), 16), FLUX, "the bundle needs display images"),
        (PLAIN, FLUX, None),
        (PLAIN, replace(FLUX, unit="nanomaggy"), None),
        (PLAIN, replace(FLUX, unit=None), "the flux is in an unknown unit; the bundle was trained on nJy"),
        (replace(PLAIN, unit=None), replace(FLUX, unit=None), None),
        (PLAIN, replace(FLUX, stretch="gz_decals"), "stretch is gz_decals; the bundle needs none"),
        (replace(RGB, orientation="top-down"), FLUX, "orientation of the cutouts is not known"),
        (replace(RGB, orientation="top-down"), replace(FLUX, orientation="bottom-up"), None),
    ],
)
def test_what_can_be_made_the_bundle_s_input_and_what_is_refused(contract, image, said):
    found = mismatches(contract, image)
    assert found == [] if said is None else said in " ".join(found), found


def test_a_bundle_of_an_unknown_stretch_or_version_says_so_when_it_meets_flux():
    with pytest.raises(UsageError, match="no stretch 'mine'"):
        BundleInput(InputContract(("R", "G", "B"), 16, stretch="mine"), FLUX)
    with pytest.raises(UsageError, match="version 9 is needed"):
        mismatches(replace(RGB, stretch_version=9), FLUX)
    with pytest.raises(InputError, match="unit of the flux is not known"):
        BundleInput(RGB, replace(FLUX, unit="adu"))


def test_rows_are_flipped_to_the_bundle_s_orientation():
    import torch

    pixels = torch.from_numpy(np.arange(24, dtype=np.float32).reshape(1, 4, 3, 2))
    image = replace(FLUX, shape=(4, 3, 2), bands=("g", "r"), orientation="bottom-up")
    for wanted, turned in ((None, pixels), ("bottom-up", pixels), ("top-down", pixels.flip(1))):
        assert torch.equal(BundleInput(replace(PLAIN, orientation=wanted), image).pixels(pixels), turned)
    with pytest.raises(InputError, match="orientation 'up' is not one of"):
        replace(PLAIN, orientation="up")


def test_a_contract_is_completed_for_the_record():
    made = complete(
        InputContract(("R", "G", "B"), 16, stretch="legacy_lupton", stretch_parameters={"q": 3}), FLUX
    )
    assert made.stretch_parameters["q"] == 3
    assert made.stretch_parameters["scales"] == (6.0, 3.4, 2.2)
    assert InputContract.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert complete(InputContract(("g",), 16, stretch="none"), FLUX).unit == "nJy"
    with pytest.raises(InputError, match="makes the channels R, G, B; bands are g, r, z"):
        complete(InputContract(("g", "r", "z"), 16, stretch="legacy_lupton"), FLUX)
