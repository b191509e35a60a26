"""``surveyproc report``: what a run holds, as one HTML file."""

from __future__ import annotations

import argparse

HELP = "write the report of a run: one HTML file with counts, histograms and galleries"
EXAMPLES = """
surveyproc report out.run
surveyproc report out.run --output report.html --catalog gz.cat
surveyproc report out.run --gallery gallery.png
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--output", metavar="FILE", help="HTML file to write (default RUN/report.html)")
    parser.add_argument("--catalog", metavar="CAT", help="where the run's cutout catalog is now, if it moved")
    parser.add_argument(
        "--gallery", metavar="PNG", help="write one picture instead: the surest galaxies of each answer"
    )
    parser.add_argument("--json", action="store_true", help="print the path as JSON")


def run(args: argparse.Namespace) -> int:
    """Write the file and print where it is."""
    from surveyproc.cli._output import print_json
    from surveyproc.errors import UsageError
    from surveyproc.report import write_report
    from surveyproc.report.gallery import write_gallery

    if args.gallery and args.output:
        raise UsageError("--gallery and --output are both given", fix="give one of them")
    if args.gallery:
        written = write_gallery(args.run, args.gallery, args.catalog)
    else:
        written = write_report(args.run, args.catalog, args.output)
    if args.json:
        print_json({"gallery" if args.gallery else "report": written})
    else:
        print(written)
    return 0
