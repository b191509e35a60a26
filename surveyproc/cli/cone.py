"""``surveyproc cone``: the rows of a run or a catalog in a part of the sky."""

from __future__ import annotations

import argparse
import shutil
import sys
from typing import TYPE_CHECKING

from surveyproc.cli._common import add_leaf, leaf_of

if TYPE_CHECKING:
    import pyarrow as pa

    from surveyproc.catalog.sky_regions import Region

HELP = "find the rows of a run or a catalog around a position, or in a region of the sky"
EXAMPLES = """
surveyproc cone out.run --ra 180.5 --dec -1.2 --radius 30
surveyproc cone out.run --ra 180.5 --dec -1.2 --radius 30 --table embeddings --columns object_id
surveyproc cone gaia.hats --ra 180.5 --dec -1.2 --radius 3600 --format csv > around.csv
surveyproc cone gz.cat --box 350 10 -5 5 --columns all --format parquet --output equator.parquet
surveyproc cone gz.cat --polygon 10,20 12,20 11,22 --format json
surveyproc cone s3://bucket/out.run --moc footprint.fits --format parquet --output inside.parquet
"""
EPILOG = (
    "A cone's rows come nearest first, with their distance in arcseconds as distance_arcsec. A catalog may be ours, any "
    "HATS catalog or collection, or Parquet files with columns ra and dec. With --columns all and --format parquet a "
    "region of a cutout catalog is a cutout catalog again."
)

CELL = 10  # characters that most values take


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("uri", metavar="RUN_OR_CATALOG")
    parser.add_argument("--ra", type=float, metavar="DEG", help="centre of the cone, degrees ICRS")
    parser.add_argument("--dec", type=float, metavar="DEG")
    parser.add_argument("--radius", type=float, metavar="ARCSEC", help="of the cone, arcseconds")
    parser.add_argument(
        "--box",
        nargs=4,
        type=float,
        metavar=("RA1", "RA2", "DEC1", "DEC2"),
        help="from west to east, degrees",
    )
    parser.add_argument(
        "--polygon", nargs="+", metavar="RA,DEC", help="corners, degrees; edges are great circles"
    )
    parser.add_argument("--moc", metavar="FILE", help="Multi-Order Coverage map: FITS, .json, or ASCII .txt")
    parser.add_argument(
        "--table", metavar="NAME", help="table of a run or of what was published (default morphology)"
    )
    parser.add_argument(
        "--columns", metavar="A,B,...", help="columns to read; all for lists and bytes (pixels) too"
    )
    add_leaf(parser)
    parser.add_argument("--format", choices=("table", "csv", "parquet", "json"), default="table")
    parser.add_argument("--output", metavar="FILE", help="file to write with --format parquet")
    parser.add_argument(
        "--json", action="store_const", const="json", dest="format", help="same as --format json"
    )


def run(args: argparse.Namespace) -> int:
    """Print the rows, or write them to a file."""
    import pyarrow as pa

    from surveyproc.catalog.sky_reading import cone_search, search, write_found
    from surveyproc.catalog.sky_regions import Cone
    from surveyproc.errors import UsageError
    from surveyproc.runs.query import sky_table

    region = _region(args)
    if (args.format == "parquet") != bool(args.output):
        raise UsageError(
            "--format parquet and --output go together",
            fix="give both; csv and json go to the terminal, or with > into a file",
        )
    table = sky_table(args.uri, args.table, leaf_of(args))
    columns = args.columns.split(",") if args.columns else None
    if isinstance(region, Cone):
        found = iter([cone_search(table, region, columns)])
    else:
        found = search(table, region, columns)
    if args.output:
        print(f"{write_found(found, table, args.output):,} rows in {args.output}")
    else:
        _print(pa.concat_tables(found), args.format, fit=columns is None)
    return 0


def _print(found: pa.Table, form: str, fit: bool) -> None:
    from surveyproc.cli._output import print_rows

    shown = found.select(_that_fit(found)) if fit and form == "table" else found
    print_rows(shown.column_names, list(zip(*(c.to_pylist() for c in shown.columns))), form)
    hidden = found.num_columns - shown.num_columns
    if hidden:
        more = f"{hidden} more column{'s' if hidden > 1 else ''}"
        print(f"{more}: name them with --columns, or give --format csv", file=sys.stderr)


def _that_fit(found: pa.Table) -> list[str]:
    """Columns as far as the terminal is wide: those that identify an object first."""
    first = [n for n in ("distance_arcsec", "object_id", "ra", "dec") if n in found.column_names]
    names = first + [n for n in found.column_names if n not in first and n != "_healpix_29"]
    width, fitting = shutil.get_terminal_size().columns, 0
    for name in names:
        width -= max(len(name), CELL) + 2
        fitting += width >= 0
    return names[: max(fitting, len(first))]


def _region(args: argparse.Namespace) -> Region:
    from surveyproc.catalog.sky_regions import Box, Cone, Moc, Polygon
    from surveyproc.cli._common import require
    from surveyproc.errors import UsageError

    cone = any(getattr(args, name) is not None for name in ("ra", "dec", "radius"))
    given = [f"--{name}" for name in ("box", "polygon", "moc") if getattr(args, name) is not None]
    if len(given) + cone > 1:
        both = " and ".join([*(["--ra, --dec, --radius"] if cone else []), *given])
        raise UsageError(f"{both}: one region at a time", fix="give one of them")
    if args.box:
        west, east, south, north = args.box
        return Box((west, east), (south, north))
    if args.polygon:
        return Polygon(tuple(_corner(word) for words in args.polygon for word in words.split()))
    if args.moc:
        return Moc.load(args.moc)
    require(args, "ra", "dec", "radius")
    return Cone(args.ra, args.dec, args.radius)


def _corner(word: str) -> tuple[float, float]:
    from surveyproc.errors import UsageError

    try:
        ra, dec = (float(part) for part in word.split(","))
    except ValueError as error:
        raise UsageError(
            f"--polygon {word}: a corner is RA,DEC in degrees", fix="for instance --polygon 10,20 12,20 11,22"
        ) from error
    return ra, dec
