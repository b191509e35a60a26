"""The figures on the model cards, measured again on the real images."""

import numpy as np
import pytest
import torch
from PIL import Image

from surveyproc.identifiers import splits_of
from surveyproc.images.views import prepare
from surveyproc.models.bundle import open_bundle
from surveyproc.training.loop import predict
from surveyproc.votes import VoteSchema
from surveyproc.votes.labels import read_labels
from surveyproc.votes.metrics import kaggle_rmse


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("gz2", 0.093), ("gz2-fast", 0.10)])
def test_a_bundle_measures_what_its_card_says_on_test_ids_of_full_size_images(shared_data, name, most):
    folder = shared_data / "galaxy_zoo_challenge"
    bundle = open_bundle(name)
    schema = VoteSchema.from_dict(bundle.record["outputs"]["vote_schema"])
    labels = read_labels(str(folder / "labels.csv"), schema)
    rows = np.flatnonzero(splits_of(labels.ids) == "test")
    metrics = bundle.record["metrics"]
    assert len(rows) == metrics["n"]
    prepared = np.concatenate(
        [
            prepare(
                torch.from_numpy(np.array(Image.open(folder / "images" / f"{labels.ids[row]}.jpg")))[None],
                bundle.contract,
            ).numpy()
            for row in rows
        ]
    )
    predicted = predict(bundle.build(), prepared, schema, bundle.record["inference"]["views"]).numpy()
    rmse = kaggle_rmse(predicted, labels.joint[rows])
    assert rmse == pytest.approx(metrics["rmse"], abs=2e-4)
    assert rmse <= most
