"""`surveyproc ingest --tiles` in this process: pattern, sources, output, size, [dtype, [endpoint of a store]]."""

import contextlib
import io
import json
import sys

import pyarrow.parquet as pq
from measured import report

from surveyproc.cli.main import main


def ingest(
    pattern: str, sources: str, output: str, size: str, dtype: str = "float32", endpoint: str = ""
) -> int:
    """Give the command; returns the cutouts written."""
    words = ["ingest", "--tiles", pattern, "--bands", "VIS", "--sources", sources, "--size", size]
    words += ["--dtype", dtype, "--output", output, "--json"]
    if endpoint:
        words += [f"--storage=endpoint_url={endpoint}", "--storage=key=bench", "--storage=secret=bench"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main([*words, "cluster=none"])
    if code:
        raise SystemExit(code)
    return int(json.loads(printed.getvalue())["rows_out"])


arguments = sys.argv[1:]
if len(arguments) < 6:  # what a store sends is counted: then nothing is warmed up
    one = f"{arguments[2]}-one.parquet"
    pq.write_table(pq.read_table(arguments[1]).slice(0, 1), one)
    ingest(arguments[0], one, f"{arguments[2]}-one.cat", *arguments[3:])
report(lambda: ingest(*arguments))
