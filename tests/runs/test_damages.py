"""Every damage done to a finished run on purpose is found, and the line that fails says which it is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import faiss
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damages import MANIFEST, agree, edit, failed, flip, forge, leaves, with_column

from surveyproc.errors import InputError
from surveyproc.runs import open_run
from surveyproc.runs.verify import verify_run

TABLES = ("embeddings", "morphology", "morphology_posterior")
ACCOUNTS = {
    "embeddings": {"embeddings: accounts", "index: accounts"},
    "morphology": {"morphology: accounts"},
    "morphology_posterior": {"morphology_posterior: accounts"},
    "rejects": {f"{table}: accounts" for table in TABLES},
    "index vectors": {"index: accounts"},
    "index ids": {"index: accounts"},
}
KINDS = tuple(ACCOUNTS)


def a_file(run: Path, kind: str, number: int = 0) -> Path:
    """A file of each kind that a finished run holds."""
    pattern = {
        "rejects": "rejects/*.parquet",
        "index vectors": "index/*.faiss",
        "index ids": "index/*.ids.parquet",
    }.get(kind, f"{kind}/dataset/**/*.parquet")
    return sorted(run.glob(pattern))[number]


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit(run, kind, place):
    flip(a_file(run, kind), place)
    assert failed(run) == {f"{kind}: digest"} | ACCOUNTS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file(run, kind):
    a_file(run, kind).unlink()
    assert failed(run) == {f"{kind}: present"} | ACCOUNTS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file(run, kind):
    path = a_file(run, kind)
    os.truncate(path, path.stat().st_size - 1)
    assert failed(run) == {f"{kind}: present"} | ACCOUNTS[kind]


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "rejects"])
def test_a_swapped_pair_of_files(run, kind):
    one, other = a_file(run, kind, 0), a_file(run, kind, 1)
    aside = run.parent / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    lines = failed(run)
    assert lines & {f"{kind}: present", f"{kind}: digest"}
    assert lines <= {f"{kind}: present", f"{kind}: digest"} | ACCOUNTS[kind]


@pytest.mark.parametrize("table", TABLES)
def test_a_doubled_row(run, table):
    """The tool that wrote it adapted the digests everywhere, but not the counts."""
    rows = pq.read_table(leaves(run, table)[0])
    forge(run, leaves(run, table)[0], pa.concat_tables([rows.slice(0, 1), rows]))
    assert failed(run) == {f"{table}: rows", f"{table}: ids"} | ACCOUNTS[table]


def test_a_doubled_row_that_only_the_manifest_agrees_with(run):
    rows = pq.read_table(leaves(run, "morphology")[0])
    forge(run, leaves(run, "morphology")[0], pa.concat_tables([rows.slice(0, 1), rows]), commits=False)
    assert failed(run) == {
        "manifest: contents",
        "morphology: rows",
        "morphology: ids",
        "morphology: accounts",
    }


def test_a_doubled_row_that_was_counted(run):
    """Every number that is stated anywhere agrees: only the accounts of the run tell."""
    rows = pq.read_table(leaves(run, "morphology")[0])
    forge(run, leaves(run, "morphology")[0], pa.concat_tables([rows.slice(0, 1), rows]), counts=True)
    assert failed(run) == {"morphology: accounts", "morphology: hats"}
    replace(run / "morphology" / "hats.properties", "hats_nrows=59", "hats_nrows=60")
    assert failed(run) == {"morphology: accounts"}


@pytest.mark.parametrize("counts", [False, True])
def test_a_row_that_took_the_place_of_another(run, counts):
    """One object twice, another lost: the number of rows is right."""
    rows = pq.read_table(leaves(run, "embeddings")[0])
    doubled = pa.concat_tables([rows.slice(0, 1), rows.slice(0, 1), rows.slice(2)])
    forge(run, leaves(run, "embeddings")[0], doubled, counts=counts)
    assert failed(run) == ACCOUNTS["embeddings"] | (set() if counts else {"embeddings: ids"})


@pytest.mark.parametrize("column", ["_healpix_29", "ra"])
def test_a_row_in_the_wrong_pixel(run, column):
    """LSDB loses such a row from cone searches and says nothing."""
    rows = pq.read_table(leaves(run, "morphology")[0])
    values = rows[column].to_numpy().copy()
    values[0] = (0 if values[0] >> 58 else 11 << 58) if column == "_healpix_29" else values[0] + 180
    forge(run, leaves(run, "morphology")[0], with_column(rows, column, values))
    assert failed(run) == {"morphology: pixel"}


def test_a_row_that_moved_to_the_leaf_of_another_pixel(run):
    """Every count, id sum and digest agrees."""
    one, other = leaves(run, "morphology")[:2]
    rows = pq.read_table(one)
    forge(run, other, pa.concat_tables([pq.read_table(other), rows.slice(0, 1)]), counts=True)
    forge(run, one, rows.slice(1), counts=True)
    assert failed(run) == {"morphology: pixel"}


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "morphology/dataset/copy.parquet", "rejects/.hidden", "index/index-00009.faiss", "new/x"],
)
def test_a_foreign_file(run, name):
    (run / name).parent.mkdir(exist_ok=True)
    shutil.copy(leaves(run, "morphology")[0], run / name)
    assert failed(run) == {"no other files"}


@pytest.mark.parametrize("name", ["_attempts/shard-0000001-00/morphology.parquet", "index/.x.0123456789ab"])
def test_what_an_attempt_left_behind(run, name):
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).write_bytes(b"half")
    assert failed(run) == {"no leftovers"}


@pytest.mark.parametrize("unit", ["shard-", "merge-morphology-", "merge-rejects-", "index-"])
def test_a_missing_commit(run, unit):
    sorted((run / "_commits").glob(f"{unit}*"))[0].unlink()
    assert failed(run) == {"manifest: contents"} | ({"commits"} if unit == "shard-" else set())


@pytest.mark.parametrize("unit", ["shard-", "merge-morphology-", "index-"])
def test_a_commit_that_is_no_json_any_more(run, unit):
    flip(sorted((run / "_commits").glob(f"{unit}*"))[0], 0)
    assert failed(run) == {"manifest: contents", "commits"}


def test_a_swapped_pair_of_commits(run):
    one, other = sorted((run / "_commits").glob("shard-*"))[:2]
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    assert failed(run) == {"commits", "manifest: contents"}


def test_a_commit_that_was_not_planned(run):
    shutil.copy(run / "_commits" / "shard-0000000.json", run / "_commits" / "shard-0000099.json")
    assert failed(run) == {"commits"}


def first_file(manifest: dict) -> dict:
    return manifest["tables"]["morphology"]["files"][0]


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (lambda m: m.update(rows_in=61), set()),
        (lambda m: m.update(rows=58), set()),
        (lambda m: m.update(rejects=2), set()),
        (lambda m: m.update(id_sum="5"), {f"{t}: accounts" for t in TABLES}),
        (lambda m: m["tables"]["morphology"].update(rows=60), set()),
        (lambda m: m["tables"]["morphology"].update(bundle="other"), {"morphology: hats"}),
        (lambda m: m["tables"]["morphology"].update(encoder_sha256="0"), {"morphology: hats"}),
        (lambda m: first_file(m).update(rows=1), {"morphology: rows", "morphology: hats"}),
        (lambda m: first_file(m).update(id_sum="1"), {"morphology: ids"}),
        (lambda m: first_file(m).update(bytes=1), {"morphology: present", "morphology: accounts"}),
        (lambda m: first_file(m).update(sha256="ab"), {"morphology: digest", "morphology: accounts"}),
        (lambda m: first_file(m).update(pixel=[5, 5]), {"morphology: pixel", "morphology: hats"}),
        (lambda m: m["tables"].pop("morphology_posterior"), {"no other files"}),
        (
            lambda m: m["tables"]["morphology"]["files"].pop(),
            {"morphology: accounts", "morphology: hats", "no other files"},
        ),
        (lambda m: m["index"].update(rows=58), {"index: accounts"}),
        (lambda m: m["index"]["files"][0].update(rows=1), {"index vectors: rows", "index: accounts"}),
        (lambda m: m.update(index=None), {"index", "no other files"}),
        (lambda m: first_file(m).pop("rows"), {"manifest: form"}),
        (lambda m: m.pop("tables"), {"manifest: form"}),
    ],
)
def test_a_changed_count_in_the_manifest(run, change, lines):
    edit(run / MANIFEST, change)
    assert failed(run) == {"manifest: contents"} | lines


def test_a_changed_generation(run):
    edit(run / MANIFEST, lambda m: m.update(generation=3))
    assert failed(run) == {"manifest"}


def test_a_manifest_that_is_no_json_any_more(run):
    flip(run / MANIFEST, 0)
    with pytest.raises(InputError, match="the manifest is damaged") as caught:
        open_run(str(run))
    assert f"surveyproc repair {run}" in caught.value.fix


@pytest.mark.parametrize("file", ["dataset/_common_metadata", "partition_info.csv", "hats.properties"])
@pytest.mark.parametrize("table", ["morphology", "embeddings"])
def test_a_missing_hats_metadata_file(run, table, file):
    (run / table / file).unlink()
    assert failed(run) == {f"{table}: hats"}


def replace(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("partition_info.csv", "Npix\n", "Npix\n7,1234\n"),
        ("partition_info.csv", "Norder,Npix\n", "Norder,Npix\n0,11\n"),
        ("hats.properties", "hats_nrows=59", "hats_nrows=60"),
        ("hats.properties", "hats_col_ra=ra", "hats_col_ra=rb"),
        ("hats.properties", "hats_npix_suffix=.parquet\n", ""),
    ],
)
def test_hats_metadata_that_say_something_else(run, file, before, after):
    replace(run / "morphology" / file, before, after)
    assert failed(run) == {"morphology: hats"}


def test_a_leaf_that_the_partitions_do_not_list(run):
    path = run / "morphology" / "partition_info.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert failed(run) == {"morphology: hats"}


def test_hats_metadata_with_other_columns(run):
    path = run / "morphology" / "dataset" / "_common_metadata"
    pq.write_metadata(pq.read_schema(path).remove(4), path)
    assert failed(run) == {"morphology: hats"}
    path.write_bytes(b"PAR1 nothing PAR1")
    assert failed(run) == {"morphology: hats"}


def test_a_file_with_other_columns(run):
    path = leaves(run, "morphology")[-1]
    forge(run, path, pq.read_table(path).drop_columns(["difficulty"]))
    assert failed(run) == {"morphology: schema"}


def test_files_that_all_have_other_columns(run):
    for path in leaves(run, "embeddings"):
        rows = pq.read_table(path)
        place = rows.schema.get_field_index("ra")
        forge(run, path, rows.set_column(place, "ra", rows["ra"].cast(pa.float32())))
    assert failed(run) == {"embeddings: schema"}


def test_a_file_that_is_no_table(run):
    path = leaves(run, "morphology")[0]
    path.write_bytes(b"not Parquet")
    agree(run, path)
    assert failed(run) == {"morphology: rows", "morphology: accounts"}


def test_an_index_with_fewer_vectors_than_embeddings(run):
    path = a_file(run, "index vectors")
    vectors = faiss.read_index(str(path))
    fewer = faiss.IndexFlatIP(vectors.d)
    fewer.add(vectors.reconstruct_n(0, vectors.ntotal - 1))
    faiss.write_index(fewer, str(path))
    agree(run, path)
    assert failed(run) == {"index vectors: rows", "index: accounts"}
    agree(run, path, rows=fewer.ntotal)
    edit(next((run / "_commits").glob("index-*0.json")), lambda c: c.update(rows=fewer.ntotal))
    edit(run / MANIFEST, lambda m: m["index"].update(rows=m["index"]["rows"] - 1))
    assert failed(run) == {"index: accounts"}


def test_an_index_with_the_ids_of_other_objects(run):
    path = a_file(run, "index ids")
    rows = pq.read_table(path)
    ids = rows["object_id"].to_numpy().copy()
    ids[0] = 999_999
    forge(run, path, with_column(rows, "object_id", ids), counts=True)
    assert failed(run) == {"index: accounts"}


def test_an_index_file_that_is_none(run):
    path = a_file(run, "index vectors")
    path.write_bytes(b"short")
    agree(run, path)
    assert failed(run) == {"index vectors: rows", "index: accounts"}


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan.slice(1),
        lambda plan: plan.slice(0, plan.num_rows - 1),
        lambda plan: pa.concat_tables([plan.slice(1, 1), plan.slice(0, 1), plan.slice(2)]),
        lambda plan: with_column(plan, "rows", plan["rows"].to_numpy() + 1),
    ],
    ids=["first lost", "last lost", "order", "rows"],
)
def test_a_changed_plan(run, change):
    plan = pq.read_table(run / "_plan.parquet")
    pq.write_table(change(plan), run / "_plan.parquet")
    assert "plan" in failed(run)


def test_a_missing_or_unreadable_plan(run):
    os.truncate(run / "_plan.parquet", 50)
    assert "plan" in failed(run)
    (run / "_plan.parquet").unlink()
    assert "plan" in failed(run)


def test_a_record_that_is_no_json_any_more(run):
    flip(run / "run.json", 0)
    with pytest.raises(InputError, match=r"record of the run is damaged"):
        open_run(str(run))


def test_lines_that_fail_name_the_file(run):
    path = leaves(run, "morphology")[0]
    path.unlink()
    lines = {c.name: c.detail for c in verify_run(open_run(str(run)))}
    assert lines["morphology: present"] == f"{path.relative_to(run)} is missing"


def test_of_many_damaged_files_a_few_are_named(run):
    for path in (run / "embeddings").rglob("Npix*.parquet"):
        path.unlink()
    many = len(leaves(run, "morphology"))
    assert many > 3
    lines = {c.name: c.detail for c in verify_run(open_run(str(run)))}
    assert lines["embeddings: present"].endswith(f"and {many - 3} more")
    assert lines["embeddings: present"].count("is missing") == 3
