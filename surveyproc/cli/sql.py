"""``surveyproc sql``: query the tables of runs and catalogs."""

from __future__ import annotations

import argparse

from surveyproc.cli._common import add_leaf, leaf_of

HELP = "query the tables of a run, or a catalog, with SQL (DuckDB)"
EXAMPLES = """
surveyproc sql out.run "SELECT object_id, difficulty FROM morphology ORDER BY 2 DESC LIMIT 5"
surveyproc sql out.run 'SELECT avg("smooth-or-featured_smooth_fraction") FROM morphology'
surveyproc sql gz.cat "SELECT count(*) FROM catalog"
surveyproc sql a.run b.run "SELECT reason, count(*) FROM rejects GROUP BY 1" --format csv
"""
EPILOG = "Several runs are read as one. Without a statement the tables and their columns are listed."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("words", nargs="+", metavar="RUN_OR_CATALOG ... SQL")
    parser.add_argument("--format", choices=("table", "csv", "parquet", "json"), default="table")
    parser.add_argument("--output", metavar="FILE", help="file to write with --format parquet")
    add_leaf(parser)
    parser.add_argument(
        "--json", action="store_const", const="json", dest="format", help="same as --format json"
    )


def run(args: argparse.Namespace) -> int:
    """Print the result of one statement."""
    from surveyproc.cli._output import print_rows
    from surveyproc.errors import UsageError
    from surveyproc.runs.query import connect, export, query

    uris, sql, leaf = args.words[:-1], args.words[-1], leaf_of(args)
    if not uris:
        tables = "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal"
        print_rows(
            ["table", "column", "type"], connect(args.words, leaf).execute(tables).fetchall(), args.format
        )
    elif args.format == "parquet":
        if not args.output:
            raise UsageError("--format parquet needs a file", fix="add --output FILE")
        export(uris, sql, args.output, leaf)
        print(f"written: {args.output}")
    else:
        print_rows(*query(uris, sql, leaf), args.format)
    return 0
