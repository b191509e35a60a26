"""The exact index: brute force says the same."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from drive import run_here
from toys import toy_bundle, toy_catalog, toy_pixels

from surveyproc.errors import InputError
from surveyproc.runs import open_run
from surveyproc.search import flat


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose index has several shards, with ids that a double cannot hold."""
    folder = tmp_path_factory.mktemp("run")
    ids = [2**53 + i if i % 2 else -(2**60) - i for i in range(120)]
    pixels = toy_pixels(120)
    pixels[7] = 3
    catalog = toy_catalog(folder / "in.cat", rows=120, ids=ids, pixels=pixels)
    patch = pytest.MonkeyPatch()
    patch.setattr("surveyproc.runs.merge.TABLE_BYTES", 1000)
    run_here(catalog, folder / "out.run", toy_bundle(folder / "toy"), "engine.shard_rows=30")
    patch.undo()
    return open_run(str(folder / "out.run"))


@pytest.fixture(scope="module")
def everything(finished):
    table = finished.table("embeddings")
    vectors = np.stack(table["embedding"].to_numpy(zero_copy_only=False)).astype(np.float64)
    return table["object_id"].to_pylist(), vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brute_force(everything, query: np.ndarray, k: int) -> list[tuple]:
    ids, vectors = everything
    similarity = vectors @ query
    return [(ids[i], similarity[i]) for i in np.argsort(-similarity, kind="stable")[:k]]


def test_the_index_is_in_shards_and_holds_every_object_once(finished, everything):
    entry = finished.manifest["index"]
    assert len(entry["files"]) > 2
    assert entry["rows"] == len(everything[0]) == 119


@pytest.mark.parametrize("k", [1, 10, 118])
def test_similar_objects_are_those_of_brute_force(finished, everything, k):
    ids, vectors = everything
    for row in (0, 50, 118):
        found = flat.similar(finished, ids[row], k)
        expected = [p for p in brute_force(everything, vectors[row], k + 1) if p[0] != ids[row]][:k]
        assert len(found) == k
        assert ids[row] not in [i for i, _ in found]
        np.testing.assert_allclose([s for _, s in found], [s for _, s in expected], atol=2e-6)
        exact = dict(brute_force(everything, vectors[row], 119))
        np.testing.assert_allclose([exact[i] for i, _ in found], [s for _, s in expected], atol=2e-6)


def test_more_neighbours_than_objects_are_all_objects(finished, everything):
    found = flat.similar(finished, everything[0][3], 1000)
    assert sorted(i for i, _ in found) == sorted(set(everything[0]) - {everything[0][3]})


def test_several_queries_at_once_find_what_each_finds_alone(finished, everything):
    queries = everything[1][[4, 40, 80]].astype(np.float32)
    ids, scores = flat.search(finished, queries, 5)
    assert scores.shape == (3, 5)
    for row, query in enumerate(queries):
        alone, _ = flat.search(finished, query[None], 5)
        assert ids[row] == alone[0]
        assert (np.diff(scores[row]) <= 0).all()


def test_twins_of_equal_similarity_do_not_push_each_other_out(tmp_path):
    pixels = toy_pixels(20)
    pixels[10] = pixels[3]
    catalog = toy_catalog(tmp_path / "in.cat", rows=20, pixels=pixels)
    run_here(catalog, tmp_path / "out.run", toy_bundle(tmp_path / "toy"), "engine.draws=1")
    run = open_run(str(tmp_path / "out.run"))
    assert flat.similar(run, 1003, 1)[0][0] == 1010
    assert flat.similar(run, 1010, 1)[0][0] == 1003


def test_an_object_without_embedding_is_told(finished):
    rejected = finished.table("rejects")["object_id"][0].as_py()
    for missing in (rejected, 123):
        with pytest.raises(InputError, match="no object") as caught:
            flat.similar(finished, missing, 3)
        assert "rejects" in caught.value.fix


def test_ids_are_read_in_the_type_of_the_run(finished):
    assert flat.parse_id(finished, str(2**53 + 1)) == 2**53 + 1
    with pytest.raises(InputError, match="integers"):
        flat.parse_id(finished, "NGC 1300")


def test_a_query_of_another_length_is_refused(finished):
    with pytest.raises(InputError, match="dimensions"):
        flat.search(finished, np.ones((1, 3), np.float32), 2)


def test_a_run_without_index_is_told(tmp_path):
    catalog = toy_catalog(tmp_path / "in.cat", rows=10)
    run_here(catalog, tmp_path / "out.run", toy_bundle(tmp_path / "toy"), "output.index=false")
    with pytest.raises(InputError, match="no index"):
        flat.similar(open_run(str(tmp_path / "out.run")), 1003, 3)


def test_unit_vectors_have_length_one_and_zero_stays_zero():
    column = pa.chunked_array([pa.array([[3.0, 4.0], [0.0, 0.0]], pa.list_(pa.float16(), 2))])
    np.testing.assert_allclose(flat.unit_vectors(column), [[0.6, 0.8], [0.0, 0.0]], atol=1e-6)
