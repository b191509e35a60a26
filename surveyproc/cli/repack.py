"""``surveyproc repack``: cutouts of any form into the fast layout."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from surveyproc.cli._common import names, outcome_lines

if TYPE_CHECKING:
    from surveyproc.catalog import Given
    from surveyproc.ingest.repack.report import RepackReport

HELP = "write cutouts of any form as a catalog in the fast layout; again resumes"
EXAMPLES = """
surveyproc repack lists.parquet --output fast.cat
surveyproc repack Galaxy10_DECals.h5 --number-rows --output galaxy10.cat
surveyproc repack ssl-legacysurvey/ --bands g,r,z --unit nanomaggy --output ssl.cat
surveyproc repack hf_dataset/ --id objid --size 128 --output small.cat
surveyproc repack mmu/hsc --unit counts --zeropoint 27 --bands hsc-g=g,hsc-r=r,hsc-i=i --output hsc.cat
surveyproc repack images/ --size 128 --output images.cat
"""
EPILOG = (
    "IN is a folder or file of Parquet (plain or HATS: encoded bytes, struct{bytes,path}, lists, tensors, Multimodal "
    "Universe), of HDF5 (Galaxy10, ssl-legacysurvey), or a folder of images, whose names are the ids. Flags say what "
    "the files do not; nothing is guessed. With positions the output is HATS. A row that cannot be used is listed in "
    "CAT/rejects.parquet with its reason. settings (defaults): surveyproc repack --settings"
)
OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("input", nargs="?", metavar="IN", help="cutouts: folder, file or URI")
    parser.add_argument("--output", metavar="CAT", help="catalog folder, new or to resume")
    columns = parser.add_argument_group("columns with other names")
    columns.add_argument("--id", metavar="COL", help="column of the ids (object_id)")
    columns.add_argument(
        "--number-rows", action="store_true", help="ids are the numbers of the rows, from 0, in file order"
    )
    columns.add_argument("--ra", metavar="COL", help="column of the right ascension, degrees ICRS (ra)")
    columns.add_argument("--dec", metavar="COL", help="column of the declination, degrees ICRS (dec)")
    columns.add_argument("--image", metavar="COL", help="column of the cutouts (image)")
    pixels = parser.add_argument_group("what the pixels are, where the files do not say it")
    pixels.add_argument(
        "--bands", type=names, metavar="B,...", help="each channel in order; FILE=NAME picks and renames"
    )
    pixels.add_argument("--unit", metavar="UNIT", help="flux unit: nanomaggy, nJy, uJy, Jy, counts, ...")
    pixels.add_argument("--zeropoint", type=float, metavar="MAG", help="AB magnitude of one unit")
    pixels.add_argument("--stretch", metavar="NAME", help="stretch of display images that are not uint8")
    pixels.add_argument("--layout", metavar="HWC|CHW", help="order of the axes")
    pixels.add_argument(
        "--shape", type=_numbers, metavar="N,N,N", help="axes of one cutout in flat lists or bytes"
    )
    pixels.add_argument(
        "--mask", metavar="bad|clean", help="what True means in masks by band; bad pixels become NaN"
    )
    wanted = parser.add_argument_group("what they are to be")
    wanted.add_argument(
        "--size", type=int, metavar="N", help="resize display images to N x N pixels (LANCZOS, antialiased)"
    )
    wanted.add_argument(
        "--dtype",
        metavar="TYPE",
        help="float16: flux in half the space (5e-4 relative); uint8 or float32 for integers wider than a byte",
    )
    parser.add_argument("--accept-code", action="store_true", help="resume what another version began")
    parser.add_argument("--verbose", action="store_true", help="let Ray talk")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--settings", action="store_true", help="list the settings and their defaults")


def run(args: argparse.Namespace) -> int:
    """Repack, and say what was gained."""
    if args.settings:
        from surveyproc.config.compose import setting_lines

        print("\n".join(setting_lines("repack", args.overrides)))
        return 0
    from surveyproc.cli._common import resumable, split_overrides
    from surveyproc.errors import UsageError

    words, overrides = split_overrides([args.input] if args.input else [], args.overrides)
    if not words or len(words) != 1 or args.output is None:
        raise UsageError("IN and --output must be given", fix="see `surveyproc repack --help` for examples")
    from surveyproc.cli._output import print_json
    from surveyproc.config.repack import load_repack_config
    from surveyproc.distributed.repack import Request, repack
    from surveyproc.ingest.repack import Wanted
    from surveyproc.progress import Progress

    config = load_repack_config(overrides)
    request = Request(words[0], args.output, _given(args), Wanted(args.size, args.dtype))
    progress = Progress("repack", 0, unit="units")
    with resumable():
        report = repack(request, config, progress, args.accept_code, args.verbose)
    if args.json:
        print_json(report.to_dict())
    else:
        print("\n".join(_lines(report)))
    return 0


def _given(args: argparse.Namespace) -> Given:
    from surveyproc.catalog import Given

    names = ["id", "ra", "dec", "image", "number_rows", "bands", "unit", "zeropoint", "stretch", "layout"]
    names += ["shape", "dtype", "mask"]
    return Given(**{name: getattr(args, name) for name in names})


def _lines(report: RepackReport) -> list[str]:
    lines = outcome_lines(report, "rows", "rows")
    height, width, channels = report.image.shape
    lines.append(
        f"{report.output}: {report.layout}, {report.image.dtype} {height} x {width} px, {channels} bands "
        f"({', '.join(report.image.bands)}), {report.files:,} files"
    )
    lines += _gain(report)
    if report.left_out:
        lines.append(f"not kept: {', '.join(report.left_out)}")
    if report.note:
        lines.append(
            f"no positions: {report.note} makes the catalog HATS" if "--ra" in report.note else report.note
        )
    lines.append(f"next:\n  surveyproc run --input {shlex.quote(report.output)} --output NAME.run")
    return lines


def _gain(report: RepackReport) -> list[str]:
    before, after = report.bytes_before / 1e6, report.bytes / 1e6
    space = f"  {before:,.1f} MB before, {after:,.1f} MB now"
    if report.gain is None:
        return [space]
    gain = report.gain
    times = gain.after / max(gain.before, 1e-9)
    rates = (
        f"  read and decoded by one thread: {gain.before:,.0f} rows/s before, {gain.after:,.0f} rows/s now "
        f"({times:.1f} times, over {gain.rows:,} rows)"
    )
    return [rates, space]


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 64,64,3") from error
