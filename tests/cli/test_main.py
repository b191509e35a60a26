"""The command line: three lines instead of tracebacks, exit codes, help with examples first."""

from __future__ import annotations

import argparse
import importlib
import json
import shutil

import pytest
from drive import run_here, run_words
from toys import toy_bundle, toy_catalog, toy_pixels

from surveyproc.cli import main as entry
from surveyproc.cli._common import split_overrides
from surveyproc.cli.main import main, verbs
from surveyproc.errors import InputError, PartialError, ResourceError, SurveyprocError, UsageError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    ids = [(-1) ** i * (2**53 + i) for i in range(40)]
    pixels = toy_pixels(40)
    pixels[6] = 2
    catalog = toy_catalog(folder / "in.cat", rows=40, ids=ids, pixels=pixels)
    bundle = toy_bundle(folder / "toy")
    run_here(catalog, folder / "out.run", bundle)
    return catalog, folder / "out.run", bundle, ids


def test_without_a_verb_the_verbs_are_listed(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    for verb in verbs():
        assert f"  {verb} " in out


def examples(verb: str) -> list[str]:
    """The command lines among a verb's examples that call it."""
    text = importlib.import_module(f"surveyproc.cli.{verb}").EXAMPLES
    return [
        line
        for line in text.strip().splitlines()
        if line.startswith(f"surveyproc {verb} ") or line == f"surveyproc {verb}"
    ]


@pytest.mark.parametrize("verb", verbs())
def test_a_verb_says_what_it_is_for_with_examples_before_its_flags(verb, capsys):
    module = importlib.import_module(f"surveyproc.cli.{verb}")
    lines = examples(verb)
    assert lines
    assert "\n" not in module.HELP
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.index(lines[0]) < out.index("--help")


@pytest.mark.parametrize("verb", verbs())
def test_the_flags_in_the_examples_exist(verb):
    module = importlib.import_module(f"surveyproc.cli.{verb}")
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    known = {flag for action in parser._actions for flag in action.option_strings}
    used = {w for line in examples(verb) for w in line.split() if w.startswith("--")}
    assert used <= known


def test_an_unknown_verb_is_answered_with_the_one_that_was_meant(capsys):
    assert main(["statsu", "out.run"]) == 2
    err = capsys.readouterr().err
    assert "unknown command 'statsu'. Did you mean 'status'?" in err
    assert len(err.strip().splitlines()) == 3


def test_an_unknown_flag_is_answered_with_the_one_that_was_meant(capsys):
    assert main(["run", "--input", "a", "--outptu", "b"]) == 2
    err = capsys.readouterr().err
    assert "--outptu" in err
    assert "Did you mean '--output'?" in err


def test_missing_flags_are_told_together(capsys):
    assert main(["run"]) == 2
    assert "--input and --output must be given" in capsys.readouterr().err


def test_wrong_settings_are_told_together(capsys):
    words = ["run", "--input", "a", "--output", "b", "cluster=nome", "engine.views=5"]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "2 settings are wrong" in err
    assert "Did you mean 'none'?" in err


def test_a_missing_catalog_is_three_lines_and_code_3(capsys, tmp_path):
    assert main(["run", "--input", str(tmp_path / "no.cat"), "--output", str(tmp_path / "out.run")]) == 3
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0].startswith("surveyproc: ")
    assert lines[1].startswith("  where: ")
    assert lines[2].startswith("  fix:   ")
    assert not (tmp_path / "out.run").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (InputError("x"), 3),
        (PartialError("x"), 4),
        (ResourceError("x"), 5),
        (SurveyprocError("x"), 3),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda v: type(v).__name__,
)
def test_every_kind_of_failure_has_its_exit_code(monkeypatch, capsys, error, code):
    def fail(_):
        raise error

    monkeypatch.setattr("surveyproc.cli.status.run", fail)
    assert main(["status", "x"]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setattr("surveyproc.cli.status.run", lambda _: (_ for _ in ()).throw(InputError("x")))
    with pytest.raises(InputError):
        main(["status", "x", "--debug"])


def test_a_closed_pipe_is_no_error(monkeypatch, capfd):
    monkeypatch.setattr(entry, "_dispatch", lambda _: (_ for _ in ()).throw(BrokenPipeError()))
    monkeypatch.setattr("surveyproc.cli.main.os.dup2", lambda *_: None)
    assert main(["status", "x"]) == 0


def test_settings_are_told_from_the_values_of_a_list_flag():
    words = ["gz2", "s3://b/a=1/x", "engine.views=2", "cluster=none", "./b=c"]
    assert split_overrides(words, ["output.index=false"]) == (
        ["gz2", "s3://b/a=1/x", "./b=c"],
        ["engine.views=2", "cluster=none", "output.index=false"],
    )
    assert split_overrides(None, []) == (None, [])


def test_run_prints_what_it_wrote_and_then_that_there_is_nothing_to_do(capsys, tmp_path):
    catalog, bundle = toy_catalog(tmp_path / "in.cat", rows=20), toy_bundle(tmp_path / "toy")
    words = run_words(catalog, tmp_path / "out.run", bundle, "cluster=none")
    assert main(words) == 0
    captured = capsys.readouterr()
    assert "20 rows + 0 rejects" in captured.out
    assert "morphology_posterior" in captured.out
    assert "20 of 20 rows" in captured.err
    assert main(words) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nothing_to_do"] is True


def test_the_settings_of_run_are_listed(capsys):
    assert main(["run", "--settings"]) == 0
    assert "engine.batch_size=64" in capsys.readouterr().out


def test_status_counts_rows_and_rejects(finished, capsys):
    _, run, _, _ = finished
    assert main(["status", str(run), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["state"], status["rows_in"], status["rows"], status["rejects"]) == ("finished", 40, 39, 1)
    assert status["tables"] == {"embeddings": 39, "morphology": 39, "morphology_posterior": 39, "rejects": 1}
    assert status["shards"] == status["shards_committed"] == 4
    assert main(["status", str(run)]) == 0
    assert "39 rows + 1 rejects of 40 rows" in capsys.readouterr().out


def test_status_of_what_is_no_run_is_told(capsys, tmp_path):
    assert main(["status", str(tmp_path)]) == 3
    assert "neither a run nor a catalog" in capsys.readouterr().err


def test_verify_passes_and_fails_with_code_4(finished, capsys, tmp_path):
    _, run, _, _ = finished
    assert main(["verify", str(run)]) == 0
    assert "0 failed" in capsys.readouterr().out
    copy = shutil.copytree(run, tmp_path / "copy.run")
    (copy / "rejects" / "stray.parquet").write_bytes(b"")
    assert main(["verify", str(copy), "--json"]) == 4
    report = json.loads(capsys.readouterr().out)
    assert not report["passed"]
    assert [c["name"] for c in report["checks"] if not c["passed"]] == ["no other files"]


@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_similar_prints_ids_exactly_in_every_format(finished, capsys, form):
    _, run, _, ids = finished
    assert main(["similar", str(run), "--id", str(ids[3]), "-k", "4", "--format", form]) == 0
    out = capsys.readouterr().out
    if form == "json":
        found = [row["object_id"] for row in json.loads(out)]
    else:
        rows = out.strip().splitlines()[1 if form == "csv" else 2 :]
        found = [int(row.split("," if form == "csv" else None)[1]) for row in rows]
    assert len(found) == 4
    assert set(found) <= set(ids) - {ids[3]}


def test_similar_takes_negative_ids_and_refuses_unknown_ones(finished, capsys):
    _, run, _, ids = finished
    assert main(["similar", str(run), "--id", str(ids[1])]) == 0
    assert ids[1] < 0
    assert main(["similar", str(run), "--id", "12"]) == 3
    assert main(["similar", str(run), "--id", "M31"]) == 3
    assert main(["similar", str(run), "--id", str(ids[2]), "-k", "0"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_plan_writes_nothing_and_says_what_would_be_done(finished, capsys, tmp_path):
    catalog, _, bundle, _ = finished
    words = [
        "plan",
        *run_words(catalog, tmp_path / "new.run", bundle, "engine.shard_rows=10", "cluster=none")[1:],
    ]
    assert main([*words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["rows"], facts["shards"], facts["shards_committed"], facts["executor"]) == (
        40,
        4,
        0,
        "none",
    )
    assert not (tmp_path / "new.run").exists()


def test_the_python_functions_are_the_verbs(finished):
    import surveyproc

    _, run, _, _ = finished
    opened = surveyproc.open(run)
    assert opened.table("morphology").num_rows == 39
    assert "finished" in repr(opened)
    with pytest.raises(InputError, match="Did you mean 'morphology'"):
        opened.table("morfology")
    with pytest.raises(AttributeError):
        surveyproc.nothing  # noqa: B018
