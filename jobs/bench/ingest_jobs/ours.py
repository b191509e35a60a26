"""`surveyproc ingest --tiles` in this process: pattern, sources, output, size, [dtype, [endpoint]], repeats."""

import contextlib
import io
import json
import sys

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


arguments, repeats = sys.argv[1:-1], int(sys.argv[-1])
report(lambda: ingest(*arguments), repeats, arguments[2])
