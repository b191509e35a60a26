"""``surveyproc show``: a cutout as a picture."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "draw a cutout of a catalog in one stretch, or in all of them side by side"
EXAMPLES = """
surveyproc show flux.cat --id 1237665531717025819 --output galaxy.png
surveyproc show flux.cat --id 42 --stretch legacy_lupton --output galaxy.png
surveyproc show des.cat --id 42 --stretch legacy_lupton --parameters bands=des-g,des-r,des-z q=8 --output galaxy.png
surveyproc show gz.cat --id 100008 --output galaxy.png
"""
EPILOG = (
    "Stretches: none (flux on a linear scale), legacy_lupton, ssl_legacysurvey, gz_decals, gz_euclid, sdss_lupton, "
    "asinh_percentile. A catalog of images (JPEG, PNG, stretched pixels) is shown as it is. There is a scale bar when "
    "the catalog says the pixel scale, and a compass when it has the CD matrix; FITS rows are drawn with y upwards. Where "
    "there is one channel for each band, the last is drawn red, the middle one green and the first blue."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("catalog", metavar="CAT")
    parser.add_argument("--id", help="object id")
    parser.add_argument("--stretch", metavar="NAME", help="one stretch; all that can be made when left out")
    parser.add_argument(
        "--parameters", nargs="+", default=[], metavar="KEY=VALUE", help="parameters of that stretch"
    )
    parser.add_argument("--output", metavar="PNG", help="picture to write")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Draw, and say what was drawn and what could not be."""
    from dataclasses import asdict

    from surveyproc.cli._common import require
    from surveyproc.cli._output import print_json

    require(args, "id", "output")
    parameters = parse_parameters(args.parameters)
    from surveyproc.report.show import show_cutout

    shown = show_cutout(args.catalog, args.id, args.output, args.stretch, parameters)
    if args.json:
        print_json(asdict(shown))
        return 0
    print(f"{shown.output}: {'; '.join(shown.panels)}")
    if shown.pixel_scale_arcsec is None:
        print("  no scale bar: the catalog does not say the pixel scale")
    if shown.quality:
        print(f"  quality: {', '.join(shown.quality)}")
    for name, why in shown.left_out.items():
        print(f"  not {name}: {why}")
    return 0


def parse_parameters(words: list[str]) -> dict[str, Any]:
    """Read ``key=value`` words; a value is a number, a name, or several of them with commas.

    Raises
    ------
    UsageError
        For a word of another form.
    """
    from surveyproc.errors import UsageError

    found: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not (key and equals and text):
            raise UsageError(
                f"{word!r} is not key=value", where="--parameters", fix="for example q=8 bands=g,r,z"
            )
        values = tuple(_value(part) for part in text.strip("[]()").split(","))
        found[key] = values[0] if len(values) == 1 and (key != "bands" or values[0] is None) else values
    return found


def _value(text: str) -> float | str | None:
    if text in ("none", "null"):
        return None
    try:
        return float(text)
    except ValueError:
        return text.strip()
