"""``surveyproc ingest``: FITS tiles and sources, or a folder of images and a table, to a cutout catalog."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

from surveyproc.cli._common import names
from surveyproc.cli._ingest_tiles import (
    ONLY_IMAGES,
    ONLY_TILES,
    add_tile_arguments,
    next_lines,
    run_tiles,
    zeropoints_of,
)

if TYPE_CHECKING:
    from surveyproc.ingest import IngestReport

HELP = "make a cutout catalog of FITS tiles and sources, or of a folder of images"
EXAMPLES = """
surveyproc ingest --tiles 'DIR/{tile}_{band}.fits' --bands g,r,i --sources S.parquet --size 64 --output my.cat
surveyproc ingest --tiles 's3://b/{tile}/{band}.fits' --bands g,r --sources S.csv --id ID --ra RA --dec DEC --output my.cat
surveyproc ingest --images images/ --table labels.csv --id GalaxyID --output gz.cat
surveyproc ingest --images images/ --table s.parquet --id id --ra RA --dec DEC --carry z,mag --output my.cat
surveyproc ingest --images images/ --table labels.csv --id GalaxyID --decode --size 128 --output gz128.cat
surveyproc ingest --images stamps/ --table sources.fits --id ID --bands g,r,z --zeropoint 22.5 --output fits.cat
"""
OVERRIDES = True
EPILOG = (
    "Tiles: a source is cut from the tile in which it is farthest from the edge (a damaged tile only where no other "
    "holds it); where another tile holds it too, quality says DUPLICATE_TILE. The output is a HATS catalog. settings (defaults): surveyproc ingest --settings. "
    "Images: "
    "The image of an object is DIR/<id>.jpg, .jpeg, .png, .fits or .fits.gz, in DIR or one folder below. "
    "The catalog holds the ids, the positions and the columns named with --carry. A row or an image that "
    "cannot be used is listed in CAT/rejects.parquet with its reason."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_tile_arguments(parser)
    parser.add_argument("--images", metavar="DIR", help="folder of JPEG, PNG or FITS images")
    parser.add_argument("--table", metavar="T", help="CSV, TSV, Parquet or FITS table, one row per object")
    parser.add_argument("--id", metavar="COL", help="column of the ids: integers of up to 64 bits, or text")
    parser.add_argument("--ra", metavar="COL", help="column of the right ascension, degrees ICRS")
    parser.add_argument("--dec", metavar="COL", help="column of the declination, degrees ICRS")
    parser.add_argument(
        "--decode",
        action="store_true",
        help="store pixels instead of JPEG or PNG bytes: larger, and faster to run",
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="side of the cutouts (64); of images with --decode: resize (LANCZOS)",
    )
    parser.add_argument("--carry", type=names, default=(), metavar="COL,...", help="other columns to keep")
    parser.add_argument(
        "--bands", type=names, metavar="B,...", help="names of the channels (R,G,B for colour JPEG and PNG)"
    )
    parser.add_argument(
        "--unit",
        metavar="UNIT",
        help="flux unit of the pixels of FITS: nJy (default), nanomaggy, uJy; --images: counts for pixels as they are",
    )
    parser.add_argument(
        "--zeropoint",
        metavar="B=MAG,...",
        help="AB magnitude of one unit of the FITS images, by band or one for all; otherwise read from the headers",
    )
    parser.add_argument("--output", metavar="CAT", help="catalog folder to create")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--settings", action="store_true", help="list the settings of tiles and their defaults"
    )


def run(args: argparse.Namespace) -> int:
    """Ingest, and say what was written."""
    if args.settings:
        from surveyproc.config.compose import setting_lines

        print("\n".join(setting_lines("ingest", args.overrides)))
        return 0
    _refuse_mixture(args)
    return run_tiles(args) if args.tiles else _run_images(args)


def _refuse_mixture(args: argparse.Namespace) -> None:
    """Refuse flags of one kind of input with the other kind."""
    from surveyproc.errors import UsageError

    if args.tiles and args.images:
        raise UsageError("--tiles and --images exclude each other", fix="see --help for examples of both")
    if not args.tiles and not args.images:
        raise UsageError("--tiles or --images must be given", fix="see --help for examples of both")
    kind, others = ("tiles", ONLY_IMAGES) if args.tiles else ("images", ONLY_TILES)
    wrong = [f"--{name.replace('_', '-')}" for name in others if getattr(args, name)]
    if args.images:
        wrong += args.overrides
    if wrong:
        raise UsageError(f"{', '.join(wrong)} means nothing with --{kind}", fix="see --help for examples")


def _run_images(args: argparse.Namespace) -> int:
    from surveyproc.cli._common import require
    from surveyproc.cli._output import print_json
    from surveyproc.ingest import ingest_images
    from surveyproc.progress import Progress
    from surveyproc.stores import without_secrets

    require(args, "images", "table", "id", "output")
    progress = Progress("ingest", 0)
    report = ingest_images(
        args.images,
        args.table,
        args.id,
        args.output,
        ra_column=args.ra,
        dec_column=args.dec,
        decode=args.decode,
        size=args.size,
        carry=args.carry,
        bands=args.bands,
        progress=progress,
        unit=args.unit,
        zeropoints=_zeropoints(args),
        command=shlex.join(["surveyproc", *without_secrets(sys.argv[1:])]),
    )
    progress.close()
    if args.json:
        print_json(report.to_dict())
    else:
        print("\n".join(_lines(report)))
    return 0


def _zeropoints(args: argparse.Namespace) -> dict[str, float]:
    """AB magnitudes by band of ``--zeropoint``; the bands of FITS images are those of ``--bands``."""
    from surveyproc.errors import UsageError
    from surveyproc.ingest.tiles.units import by_band

    if not args.zeropoint:
        return {}
    if not args.bands:
        raise UsageError("--zeropoint needs --bands", fix="name each channel in order, such as --bands g,r,z")
    found = by_band(zeropoints_of(args.zeropoint), args.bands)
    if unknown := sorted(set(found) - set(args.bands)):
        raise UsageError(
            f"a zero point is given for {', '.join(unknown)}, which --bands does not name",
            where="--zeropoint",
            fix=f"bands are {', '.join(args.bands)}",
        )
    return found


def _lines(report: IngestReport) -> list[str]:
    rejects = sum(report.rejects.values())
    entered = f"{report.rows_in:,} table rows"
    if report.images_without_row:
        entered += f" + {report.images_without_row:,} images without a row"
    height, width, channels = report.image.shape
    rate = report.rows_out / max(report.seconds, 1e-9)
    took = f"{report.seconds:.1f} s ({rate:,.0f} rows/s)"
    lines = [f"{entered} = {report.rows_out:,} cutouts + {rejects:,} rejects in {took}"]
    lines += [f"  {count:>9,} {reason}" for reason, count in report.rejects.items()]
    if rejects:
        lines.append(f"  each is listed in {report.output}/rejects.parquet")
    if report.positions_missing:
        lines.append(f"  {report.positions_missing:,} cutouts have no usable position")
    if report.other_files:
        lines.append(f"  {report.other_files:,} files are no images and were left alone")
    lines.append(
        f"{report.output}: {report.image.encoding} {report.image.dtype} {height} x {width} px, "
        f"{channels} bands ({', '.join(report.image.bands)}), {report.bytes / 1e6:,.1f} MB"
    )
    return [*lines, "next:", *next_lines(report.output, report.image, tiles=False)]
