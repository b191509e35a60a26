import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from surveyproc.quality import flaw_names
from surveyproc.report.summary import Histogram, TopK, answers_shown, questions_of, summarise
from surveyproc.storage import Storage


class FakeRun:
    def __init__(self, folder, **tables):
        self.storage = Storage(str(folder))
        self.tables = list(tables)
        for name, table in tables.items():
            for half, rows in enumerate((table.slice(0, 2), table.slice(2))):
                pq.write_table(rows, f"{folder}/{name}-{half}.parquet")

    def table_files(self, name):
        return [self.storage.path(f"{name}-{half}.parquet") for half in range(2)]


def batch_of(ids, **columns):
    return pa.record_batch({"object_id": ids, **columns})


def test_top_k_keeps_the_best_of_all_batches_and_the_first_of_equals():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 50, 1000).astype(float)
    scores[::7] = np.nan
    top = TopK(20)
    for start in range(0, 1000, 64):
        rows = np.arange(start, min(start + 64, 1000))
        top.update(scores[rows], batch_of(pa.array(rows)), {})
    order = np.argsort(-np.nan_to_num(scores, nan=-1), kind="stable")[:20]
    assert [p.object_id for p in top.picks] == order.tolist()


def test_a_histogram_counts_every_value_once():
    histogram = Histogram()
    histogram.update(np.array([0.0, 1.0, 0.5, np.nan]))
    histogram.update(np.array([0.5]))
    assert histogram.rows == 4
    assert histogram.missing == 1
    assert histogram.mean == 0.5
    assert histogram.counts[0] == histogram.counts[-1] == 1


def test_questions_are_read_off_the_columns():
    names = [
        "object_id",
        "a-b_yes_fraction",
        "a-b_no_fraction",
        "a-b_no_fraction_lower",
        "a-b_proportion_asked",
    ]
    assert questions_of(names) == {"a-b": ["yes", "no"]}
    assert answers_shown(questions_of(names)) == ["a-b_yes"]


def test_a_summary_counts_rows_positions_flaws_and_rejects(tmp_path):
    n = 5
    fraction = pa.array([0.9, 0.8, None, 0.1, 0.2], pa.float32())
    morphology = pa.table(
        {
            "object_id": pa.array(range(n)),
            "ra": [0.5, 359.5, 180.0, 10.0, None],
            "dec": [-89.5, 89.5, 0.0, 0.2, 0.0],
            "q_yes_fraction": fraction,
            "q_yes_fraction_lower": fraction,
            "q_yes_fraction_upper": fraction,
            "q_proportion_asked": pa.array([1.0] * n, pa.float32()),
            "difficulty": pa.array([0.1, 0.2, 0.3, 0.4, 0.9], pa.float32()),
            "domain_distance": pa.array([float("nan")] * n, pa.float32()),
            "quality": pa.array([0, 0, 0, 4, 1], pa.int32()),
        }
    )
    rejects = pa.table(
        {"object_id": [9], "shard": [0], "stage": ["decode"], "reason": ["r"], "detail": ["d"]}
    )
    summary = summarise(FakeRun(tmp_path, morphology=morphology, rejects=rejects))
    assert summary.rows == n
    assert summary.sky.sum() == 4
    assert summary.sky[0, 0] == summary.sky[179, 359] == 1
    assert summary.flawed == {4: 1, 1: 1}
    assert {p.object_id for p in summary.galleries["flawed"].picks} == {3, 4}
    assert [p.object_id for p in summary.galleries["q_yes"].picks] == [0, 1]
    assert summary.galleries["uncertain"].picks[0].object_id == 4
    assert summary.galleries["distant"].picks == []
    assert summary.fractions["q_yes"].missing == 1
    assert summary.reject_counts == {("decode", "r"): 1}
    assert len(summary.galleries["random"].picks) == n


def test_a_run_without_morphology_has_a_summary_too(tmp_path):
    summary = summarise(FakeRun(tmp_path))
    assert summary.rows == 0
    assert summary.sky is None


def test_answers_galleries_leave_out_the_flawed_and_the_unfamiliar(tmp_path):
    sure = pa.array([0.9, 0.9, 0.9, 0.9], pa.float32())
    morphology = pa.table(
        {
            "object_id": pa.array(range(4)),
            "q_yes_fraction": sure,
            "q_yes_fraction_lower": sure,
            "q_yes_fraction_upper": sure,
            "q_proportion_asked": sure,
            "difficulty": sure,
            "domain_distance": pa.array([0.5, 0.99, float("nan"), 0.5], pa.float32()),
            "quality": pa.array([0, 0, 0, 4], pa.int32()),
        }
    )
    summary = summarise(FakeRun(tmp_path, morphology=morphology))
    assert [p.object_id for p in summary.galleries["q_yes"].picks] == [0, 2]


def test_quality_bits_are_named():
    assert flaw_names(5) == ("EDGE", "MISSING_BAND")
    assert flaw_names(1 << 20 | 1) == ("EDGE", f"bits {1 << 20}")
    assert flaw_names(None) == ()
