"""``surveyproc plan``: what a run would do, from the footers alone."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from typing import Any

HELP = "say what a run would read, compute and write, without beginning it"
EXAMPLES = """
surveyproc plan --input gz.cat --output out.run
surveyproc plan --input gz.cat --output out.run engine.views=1 --json
surveyproc plan --input s3://survey/cutouts --output s3://me/out.run cluster.actors=64 --price-per-hour 0.05
surveyproc plan --input s3://survey/cutouts --output s3://me/out.run engine.device=cuda cluster.actors=8 --ms-per-cutout 0.2 --price-per-hour 3
"""
OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--input", metavar="CAT", help="cutout catalog (folder or URI)")
    parser.add_argument("--output", metavar="RUN", help="run folder")
    parser.add_argument("--bundle", nargs="+", action="extend", metavar="NAME", help="bundles (default gz2)")
    parser.add_argument("--force-domain", action="store_true", help="plan outside the bundles' domain")
    parser.add_argument(
        "--ms-per-cutout",
        type=_positive,
        metavar="MS",
        help="time of one core or GPU for one cutout, as a trial run showed (default: what the bundles state)",
    )
    parser.add_argument(
        "--price-per-hour", type=_positive, metavar="PRICE", help="of one core or GPU, to tell the cost"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def run(args: argparse.Namespace) -> int:
    """Print the plan."""
    from surveyproc.api import DEFAULT_BUNDLE
    from surveyproc.cli._common import require, split_overrides
    from surveyproc.cli._output import print_json
    from surveyproc.config.run import load_run_config
    from surveyproc.distributed.estimate import estimate

    require(args, "input", "output")
    bundles, overrides = split_overrides(args.bundle, args.overrides)
    facts = estimate(
        args.input,
        args.output,
        bundles or [DEFAULT_BUNDLE],
        load_run_config(overrides),
        args.force_domain,
        args.ms_per_cutout,
        args.price_per_hour,
    )
    if args.json:
        print_json(facts)
    else:
        print("\n".join(_lines(facts, args.output)))
    return 0


def _lines(facts: dict[str, Any], output: str) -> Iterator[str]:
    image, device = facts["image"], "core" if facts["device"] == "cpu" else "GPU"
    size = " x ".join(str(n) for n in image["shape"][:2])
    yield (
        f"input    {_count(facts['files'], 'file')}, {_count(facts['row_groups'], 'row group')}, {facts['rows']:,} rows of "
        f"{image['encoding']} {image['dtype']} {size} px: {_bytes(facts['bytes'])} to read"
    )
    yield (
        f"engine   {', '.join(facts['bundles'])}: encoder passes {facts['encoder_passes']}, {facts['device']}, "
        f"precision {facts['precision']}"
    )
    yield f"work     {_count(facts['shards'], 'shard')}, {facts['shards_committed']:,} committed already"
    for number, (name, table) in enumerate(facts["tables"].items()):
        head = "output   " if number == 0 else " " * 9
        yield f"{head}{name:22} {table['bytes_per_row']:>8,.0f} B a row {_bytes(table['bytes']):>10}"
    if facts["index_bytes"]:
        yield f"{' ' * 9}{'index':22} {'':>16} {_bytes(facts['index_bytes']):>10}"
    yield (
        f"{' ' * 9}{_bytes(facts['output_bytes'])} in {output}, two to three times that until it is finished; "
        f"{_bytes(facts['scratch_bytes'])} in TMPDIR where it is finished"
    )
    if facts["device_hours"] is None:
        yield f"time     not known: give --ms-per-cutout, what one {device} took for a cutout in a trial run"
        return
    decoding = (
        f", {facts['decode_ms_per_cutout']:.2g} ms of it to decode" if image["encoding"] != "raw" else ""
    )
    yield (
        f"time     {_amount(facts['device_hours'])} {device}-hours at {facts['ms_per_cutout']:.3g} ms a cutout{decoding}; "
        f"{_duration(facts['seconds'])} with {_count(facts['actors'], 'engine')} ({facts['executor']})"
    )
    if facts["cost"] is not None:
        yield f"cost     {_amount(facts['cost'])} at {facts['price_per_hour']:g} for a {device}-hour"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _amount(value: float) -> str:
    return f"{value:,.2f}" if value >= 1 else f"{value:.2g}"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
