import json

import pytest
from toys import toy_bundle

pytest.importorskip("galsim", reason="simulating needs the extra 'sim'")

from surveyproc import api
from surveyproc.cli.main import main


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A finished demo of 24 galaxies with an untrained bundle, in this process."""
    folder = tmp_path_factory.mktemp("demo")
    bundle = toy_bundle(folder / "toy")
    words = ["demo", "--output", str(folder / "d"), "--galaxies", "24", "--bundle", str(bundle)]
    words += ["cluster=none", "cluster.actors=1"]
    assert main(words) == 0
    return folder / "d", words


def test_the_demo_makes_a_catalog_a_run_and_a_report(demo):
    folder, _ = demo
    report = (folder / "run" / "report.html").read_text()
    assert "These galaxies are simulated" in report
    assert api.open(folder / "run").status()["rows_in"] == 24
    assert (folder / "catalog" / "dataset").is_dir()


def test_a_finished_demo_says_so_and_tells_what_to_type(demo, capsys):
    folder, words = demo
    before = (folder / "run" / "report.html").stat().st_mtime_ns
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "finished already" in out
    assert f"surveyproc verify {folder / 'run'}" in out
    assert (folder / "run" / "report.html").stat().st_mtime_ns == before


def test_json_names_everything(demo, capsys):
    _, words = demo
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["nothing_to_do"] is True
    assert result["rows"] + result["rejects"] == 24


def test_other_numbers_in_the_same_folder_are_refused(demo, capsys):
    _, words = demo
    assert main([*words, "--seed", "5"]) == 2
    assert "begun with --galaxies 24 --seed 0" in capsys.readouterr().err


def test_a_folder_with_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    assert main(["demo", "--output", str(tmp_path)]) == 3
    assert "something else" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "keep"
    assert main(["demo", "--output", str(tmp_path / "mine.txt")]) == 3


def test_an_impossible_number_of_galaxies_is_refused(tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path / "d"), "--galaxies", "0"]) == 2
    assert not (tmp_path / "d").exists()


def test_the_report_verb_prints_where_it_wrote(demo, capsys, tmp_path):
    folder, _ = demo
    assert main(["report", str(folder / "run"), "--output", str(tmp_path / "r.html"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(tmp_path / "r.html")}
    assert main(["report", str(folder / "run"), "--output", "a", "--gallery", "b"]) == 2
    assert main(["report", str(tmp_path)]) == 3
