"""`surveyproc ingest --tiles` from the command line: what it writes, what it says, what it refuses."""

import json
import shutil
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from drive import lasting_digests
from skytiles import MAGZERO, NJY_PER_COUNT, SIDE, mosaic, owner_of, positions, write_sources, write_tile

from surveyproc.catalog import open_catalog, read_batches
from surveyproc.catalog.sky import healpix29, parent_pixel
from surveyproc.cli.main import main
from surveyproc.quality import Quality

COUNT, SIZE = 400, 12
HERE = ["cluster=none", "cluster.actors=2"]


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Four tiles that overlap, and sources of which some are bad; the tiles' WCS and the table."""
    folder = tmp_path_factory.mktemp("survey")
    wcs = mosaic(folder)
    ra, dec = positions(COUNT, beyond=0.002)
    ids = [f"s{n}" for n in range(COUNT)]
    ids[10], ids[11] = ids[3], "b's11'"
    ra[20] = np.nan
    table = pa.table({"object_id": ids, "ra": ra, "dec": dec, "mag": np.linspace(18, 22, COUNT)})
    pq.write_table(table, folder / "S.parquet")
    return folder, wcs, table


def ingest(folder, output, *more, sources="S.parquet"):
    words = ["--tiles", f"{folder}/{{tile}}_{{band}}.fits", "--bands", "g,r", "--sources", folder / sources]
    return main([str(w) for w in ("ingest", *words, "--size", SIZE, "--output", output, *HERE, *more)])


def rows_of(output, columns=("object_id", "ra", "dec", "quality", "x0", "y0", "image")):
    catalog = open_catalog(str(output))
    tables = []
    for file in catalog.files:
        groups = range(len(file.row_groups))
        tables += read_batches(str(output), file.path, groups, 1000, list(columns))
    return catalog, pa.Table.from_batches(tables)


def files_of(output):
    """Every file below a catalog but the one that tells of the command."""
    found = {str(p.relative_to(output)): p.read_bytes() for p in output.rglob("*") if p.is_file()}
    found.pop("catalog.json")
    found["checksums.sha256"] = lasting_digests(found["checksums.sha256"])
    properties = found["hats.properties"].decode().splitlines()
    found["hats.properties"] = [x for x in properties if not x.startswith(("hats_creation", "obs_coll"))]
    return found


@pytest.fixture(scope="module")
def made(survey, tmp_path_factory):
    """The catalog in many small partitions, several of them fed by several tiles."""
    folder, _, _ = survey
    output = tmp_path_factory.mktemp("made") / "m.cat"
    assert ingest(folder, output, "--carry", "mag", "ingest.partition_mb=0.1", "ingest.unit_mb=0.05") == 0
    return output


def test_every_source_is_a_cutout_of_its_tile_or_a_reject(survey, made):
    folder, wcs, table = survey
    catalog, rows = rows_of(made)
    assert catalog.image.shape == (SIZE, SIZE, 2)
    assert (catalog.image.unit, catalog.image.bands) == ("nJy", ("g", "r"))
    pixels = {name: [fits.getdata(folder / f"{name}_{b}.fits") for b in "gr"] for name in wcs}
    found = {row["object_id"]: row for row in rows.to_pylist()}
    seen = set()
    for object_id, ra, dec in zip(*(table[n].to_pylist() for n in ("object_id", "ra", "dec"))):
        object_id = "s11" if object_id == "b's11'" else object_id
        if object_id in seen or np.isnan(ra):
            continue
        owners, claims = owner_of(wcs, ra, dec)
        assert (object_id in found) == (claims > 0)
        if not claims:
            continue
        seen.add(object_id)
        row = found[object_id]
        assert (row["ra"], row["dec"]) == (ra, dec)
        assert bool(row["quality"] & Quality.DUPLICATE_TILE) == (claims > 1)
        stamp = np.frombuffer(row["image"], np.float32).reshape(2, SIZE, SIZE)
        assert any(same_pixels(stamp, row, wcs[n], pixels[n], ra, dec) for n in owners), object_id
    assert len(found) == len(seen) == rows.num_rows


def same_pixels(stamp, row, tile, images, ra, dec):
    """Whether a stamp is what the tile has there, zeros beyond its edge; ``x0, y0`` say where the source is."""
    x, y = (float(v) for v in tile.wcs_world2pix(ra, dec, 0))
    left, bottom = round(x - row["x0"]), round(y - row["y0"])
    if abs(x - row["x0"] - left) > 1e-6 or not 0 <= row["x0"] < SIZE:
        return False
    padded = [np.pad(image * np.float32(NJY_PER_COUNT), SIZE) for image in images]
    cut = [p[bottom + SIZE : bottom + 2 * SIZE, left + SIZE : left + 2 * SIZE] for p in padded]
    beyond = left < 0 or bottom < 0 or left + SIZE > SIDE or bottom + SIZE > SIDE
    return np.allclose(stamp, cut, rtol=1e-6) and bool(row["quality"] & Quality.EDGE) == beyond


def test_the_rejects_say_why(survey, made):
    _, wcs, table = survey
    rejects = pq.read_table(made / "rejects.parquet")
    by_reason = dict(zip(*np.unique(rejects["reason"].to_numpy(), return_counts=True)))
    outside = [owner_of(wcs, a, d)[1] == 0 for a, d in zip(table["ra"].to_pylist(), table["dec"].to_pylist())]
    outside[10] = outside[20] = False
    assert by_reason == {"duplicate_id": 1, "no_position": 1, "no_tile": sum(outside)}
    assert sum(outside) > 10
    _, rows = rows_of(made)
    assert rejects.num_rows + rows.num_rows == COUNT
    about = json.loads((made / "catalog.json").read_text())
    assert about["rejects"] == {reason: int(n) for reason, n in by_reason.items()}
    assert (about["rows_in"], about["rows_out"], about["printed_ids"]) == (COUNT, rows.num_rows, 1)
    quality = rows["quality"].to_numpy()
    assert about["quality"] == {
        bit.name: int(np.count_nonzero(quality & bit)) for bit in Quality if np.any(quality & bit)
    }
    assert about["quality"]["DUPLICATE_TILE"] > 10


def test_partitions_are_sorted_bounded_and_where_their_rows_are(made):
    leaves = sorted((made / "dataset").rglob("*.parquet"))
    assert len(leaves) > 5
    for leaf in leaves:
        order = int(leaf.parts[-3].partition("=")[2])
        pixel = int(leaf.stem.partition("=")[2])
        table = pq.read_table(leaf, columns=["ra", "dec", "_healpix_29"])
        healpix = table["_healpix_29"].to_numpy()
        assert (np.diff(healpix) >= 0).all()
        by_position = healpix29(table["ra"].to_numpy(), table["dec"].to_numpy()).data
        assert (healpix == by_position).all()
        assert set(parent_pixel(healpix, order)) == {pixel}
        assert table.num_rows <= 0.1 * 2**20 // (SIZE * SIZE * 2 * 4)


def test_lsdb_reads_it_and_finds_a_source_by_cone(survey, made):
    lsdb = pytest.importorskip("lsdb")
    _, rows = rows_of(made)
    opened = lsdb.open_catalog(made)
    assert "image" not in opened.columns
    assert sorted(opened.compute()["object_id"]) == sorted(rows["object_id"].to_pylist())
    one = rows.slice(7, 1).to_pylist()[0]
    found = opened.cone_search(one["ra"], one["dec"], 0.5).compute()
    assert one["object_id"] in set(found["object_id"])


def test_nothing_of_the_work_is_left(made):
    assert {p.name for p in made.iterdir()} == {
        "catalog.json",
        "checksums.sha256",
        "dataset",
        "hats.properties",
        "partition_info.csv",
        "rejects.parquet",
    }
    assert not [p for p in made.rglob("*") if p.name.startswith(".")]


def test_its_files_have_their_digests(made):
    checked = subprocess.run(
        ["sha256sum", "-c", "checksums.sha256"], cwd=made, capture_output=True, text=True
    )
    named = {line.removesuffix(": OK") for line in checked.stdout.splitlines()}
    assert (checked.returncode, checked.stderr) == (0, "")
    assert named == {str(p.relative_to(made)) for p in made.rglob("*") if p.is_file()} - {"checksums.sha256"}


@pytest.mark.parametrize("more", [["cluster.actors=1"], ["ingest.chunk_rows=37"], ["ingest.unit_mb=2000"]])
def test_workers_chunks_and_units_change_no_row(survey, made, tmp_path, more):
    folder, _, _ = survey
    small = ["ingest.partition_mb=0.1", "ingest.unit_mb=0.05"]
    assert ingest(folder, tmp_path / "o.cat", "--carry", "mag", *small, *more) == 0
    one, other = rows_of(made)[1], rows_of(tmp_path / "o.cat")[1]
    assert one.sort_by("object_id").equals(other.sort_by("object_id"))
    if more == ["cluster.actors=1"]:
        assert files_of(made) == files_of(tmp_path / "o.cat")


def test_a_finished_ingest_says_so_and_changes_nothing(survey, made, capsys):
    folder, _, _ = survey
    before = files_of(made)
    assert ingest(folder, made, "--carry", "mag", "ingest.partition_mb=0.1", "ingest.unit_mb=0.05") == 0
    assert "is finished: nothing to do" in capsys.readouterr().out
    assert files_of(made) == before


def test_changed_settings_are_refused_with_the_difference(survey, made, capsys):
    folder, _, _ = survey
    small = ["ingest.partition_mb=0.1", "ingest.unit_mb=0.05"]
    assert ingest(folder, made, "--size", "16", "--dtype", "float16", *small) == 2
    said = capsys.readouterr().err
    assert "cutouts.size: was 12, is 16" in said
    assert "cutouts.dtype: was 'float32', is 'float16'" in said
    assert "sources.carry: was ['mag'], is []" in said


@pytest.fixture
def copied(survey, tmp_path):
    folder, _, _ = survey
    shutil.copytree(folder, tmp_path / "in")
    return tmp_path / "in"


def test_a_table_or_a_tile_that_was_written_again_is_refused(copied, tmp_path, capsys):
    assert ingest(copied, tmp_path / "o.cat") == 0
    write_tile(copied, "t11", 150.0, 2.0)
    assert ingest(copied, tmp_path / "o.cat") == 2
    assert "tiles are others, or were written again" in capsys.readouterr().err
    assert ingest(copied, tmp_path / "p.cat") == 0
    (copied / "S.parquet").touch()
    assert ingest(copied, tmp_path / "p.cat") == 2
    assert "the table of sources was written again" in capsys.readouterr().err


def test_sources_on_no_tile_are_refused_and_leave_no_folder(copied, tmp_path, capsys):
    write_sources(copied / "far.parquet", object_id=[1, 2], ra=[10.0, np.nan], dec=[2.0, 2.0])
    assert ingest(copied, tmp_path / "o.cat", sources="far.parquet") == 3
    said = capsys.readouterr().err
    assert "no source lies on a tile: 1 no_position, 1 no_tile" in said or "1 no_tile, 1 no_position" in said
    assert "RA 150." in said
    assert not (tmp_path / "o.cat").exists()


def test_a_tile_that_cannot_be_read_rejects_only_sources_that_no_other_holds(
    survey, copied, tmp_path, capsys
):
    _, wcs, table = survey
    for band in "gr":
        path = copied / f"t01_{band}.fits"
        path.write_bytes(path.read_bytes()[:-40_000])
    assert ingest(copied, tmp_path / "o.cat") == 0
    said = capsys.readouterr().out
    rejects = pq.read_table(tmp_path / "o.cat" / "rejects.parquet")
    rejected = dict(zip(rejects["object_id"].to_pylist(), rejects["reason"].to_pylist()))
    others = {name: tile for name, tile in wcs.items() if name != "t01"}
    lost = saved = 0
    for n, (ra, dec) in enumerate(zip(*(table[c].to_pylist() for c in ("ra", "dec")))):
        if n in (10, 20):
            continue
        on_it = owner_of({"t01": wcs["t01"]}, ra, dec)[1]
        only_there = on_it and not owner_of(others, ra, dec)[1]
        assert (rejected.get(f"s{n}") == "truncated") == bool(only_there)
        lost += bool(only_there)
        saved += bool(on_it and not only_there)
    assert lost > 20
    assert saved > 10
    about = json.loads((tmp_path / "o.cat" / "catalog.json").read_text())
    assert about["rejects"]["truncated"] == lost
    assert about["unusable_tiles"]["t01"].startswith("truncated: ")
    assert f"{lost} truncated" in said
    assert "3 of 4 tiles gave cutouts" in said
    assert about["rows_out"] + sum(about["rejects"].values()) == COUNT


def test_too_many_rejects_stop_an_ingest_which_a_higher_limit_resumes(copied, tmp_path, capsys):
    for name in ("t00", "t01", "t10"):
        path = copied / f"{name}_r.fits"
        path.write_bytes(path.read_bytes()[:-40_000])
    assert ingest(copied, tmp_path / "o.cat") == 4
    assert "limits.max_reject_fraction=0.5; the last: truncated" in capsys.readouterr().err
    with pytest.raises(Exception, match="unfinished"):
        open_catalog(str(tmp_path / "o.cat"))
    assert ingest(copied, tmp_path / "o.cat", "limits.max_reject_fraction=1") == 0
    assert rows_of(tmp_path / "o.cat")[1].num_rows > 20


def test_a_foreign_folder_and_mixed_flags_are_refused(copied, tmp_path, capsys):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "thesis.tex").write_text("x")
    assert ingest(copied, tmp_path / "o") == 2
    assert "something else (thesis.tex)" in capsys.readouterr().err
    assert ingest(copied, tmp_path / "p", "--table", "x.csv") == 2
    assert "--table means nothing with --tiles" in capsys.readouterr().err
    assert ingest(copied, tmp_path / "p", "ingest.partition_mb=-1") == 2
    assert "must be above 0" in capsys.readouterr().err
    assert ingest(copied, tmp_path / "p", "--stretch", "legacy_lupton") == 2
    assert "no band z" in capsys.readouterr().err
    assert ingest(copied, tmp_path / "p", "--bands", "G,R") == 3
    assert "the file names have the bands g, r; --bands" in capsys.readouterr().err
    assert main(["ingest", "--images", "x", "--output", "y", "--preset", "sdss_frames"]) == 2
    assert "--preset means nothing with --images" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_integer_ids_carried_columns_and_another_zero_point(copied, tmp_path, capsys):
    ra, dec = positions(5)
    ids = np.array([-7, 2**60, 3, 4, 5])
    write_sources(copied / "T.parquet", ID=ids, RA=ra, DEC=dec, z=np.arange(5.0), note=["a"] * 5)
    flags = ["--id", "ID", "--ra", "RA", "--dec", "DEC", "--carry", "z,note", "--zeropoint", "g=22.5"]
    assert (
        ingest(copied, tmp_path / "o.cat", *flags, "--unit", "nanomaggy", "--json", sources="T.parquet") == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert report["rows_out"] == 5
    catalog, rows = rows_of(tmp_path / "o.cat", ("object_id", "z", "note", "image"))
    assert sorted(rows["object_id"].to_pylist()) == sorted(ids.tolist())
    by_id = dict(zip(rows["object_id"].to_pylist(), rows["z"].to_pylist()))
    assert by_id == dict(zip(ids.tolist(), [0.0, 1.0, 2.0, 3.0, 4.0]))
    stamps = np.frombuffer(b"".join(rows["image"].to_pylist()), np.float32).reshape(5, 2, -1)
    assert stamps[:, 0].mean() == pytest.approx(10, rel=0.05)
    assert stamps[:, 1].mean() == pytest.approx(10 * 10 ** ((22.5 - MAGZERO) / 2.5), rel=0.05)
    assert catalog.image.zeropoint == 22.5


def test_flux_says_how_display_images_are_made_of_it_and_a_stretch_implies_its_type(copied, tmp_path, capsys):
    for name in ("t00", "t01", "t10", "t11"):
        shutil.copy(copied / f"{name}_r.fits", copied / f"{name}_i.fits")
    assert ingest(copied, tmp_path / "two.cat") == 0
    assert "no preset makes them of bands g, r" in capsys.readouterr().out
    assert ingest(copied, tmp_path / "flux.cat", "--bands", "g,r,i") == 0
    said = capsys.readouterr().out
    assert "--stretch sdss_lupton --dtype uint8" in said
    assert "--bundle BUNDLE" in said
    run = ["run", "--output", str(tmp_path / "o.run"), "--bundle", "gz2-fast", "cluster=none", "--input"]
    assert main([*run, str(tmp_path / "flux.cat")]) == 3
    refusal = capsys.readouterr().err
    assert "pixels are flux" in refusal
    assert "ingest the tiles with --stretch sdss_lupton --dtype uint8" in refusal
    assert "there is no band R" not in refusal
    assert ingest(copied, tmp_path / "display.cat", "--bands", "g,r,i", "--stretch", "sdss_lupton") == 0
    said = capsys.readouterr().out
    assert "uint8 12 x 12 px, 3 bands (R, G, B)" in said
    assert "BUNDLE" not in said
