"""The half of ``surveyproc ingest`` that cuts tiles: its flags, and what it prints."""

from __future__ import annotations

import argparse
import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from surveyproc.cli._common import names, outcome_lines

if TYPE_CHECKING:
    from surveyproc.cutouts import ImageSpec
    from surveyproc.distributed.ingest import Request
    from surveyproc.ingest.tile_report import TileIngestReport

ONLY_TILES = (
    *("sources", "preset", "dtype", "stretch", "size_column", "pixel_scale", "hdu"),
    *("resample", "planes", "accept_code", "verbose"),
)
ONLY_IMAGES = ("table", "decode")
NAMED = 10


def add_tile_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of tiles."""
    group = parser.add_argument_group("tiles (a run: the same command again resumes)")
    group.add_argument(
        "--tiles", metavar="PATTERN", help="files, such as 'DIR/{tile}_{band}.fits'; local or s3://"
    )
    group.add_argument(
        "--sources",
        metavar="T",
        help="CSV, TSV, Parquet, FITS or VOTable table: object_id, ra, dec (--id, --ra, --dec)",
    )
    group.add_argument(
        "--preset",
        metavar="NAME",
        help=f"layout of a survey ({', '.join(preset_names())}) or a YAML file of one; --tiles is its folder then",
    )
    group.add_argument("--dtype", metavar="TYPE", help="float32 (default) or float16; uint8 with --stretch")
    group.add_argument("--stretch", metavar="NAME", help="stretch preset that makes uint8 cutouts")
    group.add_argument(
        "--size-column", metavar="COL", help="column with each source's field in arcsec, resampled to --size"
    )
    group.add_argument(
        "--pixel-scale", type=float, metavar="ARCSEC", help="what the pixel scale should be; checked"
    )
    group.add_argument("--hdu", metavar="N|NAME", help="which image of a file, when it is not the first")
    group.add_argument("--resample", action="store_true", help="accept bands on different pixel grids")
    group.add_argument(
        "--planes", type=names, default=(), metavar="P,...", help="planes to read: weight, mask, psf"
    )
    group.add_argument("--accept-code", action="store_true", help="resume what another version began")
    group.add_argument("--verbose", action="store_true", help="let Ray talk")


def run_tiles(args: argparse.Namespace) -> int:
    """Cut the tiles, and say what was written."""
    from astropy.utils.exceptions import AstropyWarning

    from surveyproc.cli._common import require, resumable
    from surveyproc.cli._output import print_json
    from surveyproc.config.ingest import load_ingest_config
    from surveyproc.distributed.ingest import ingest_tiles
    from surveyproc.progress import Progress

    warnings.simplefilter("ignore", AstropyWarning)  # what is wrong with a header is counted and reported
    require(args, "tiles", "sources", "output", *([] if args.preset else ["bands"]))
    config = load_ingest_config(args.overrides)
    progress = Progress("ingest", 0, unit="units")
    with resumable():
        report = ingest_tiles(_request(args), config, progress, args.accept_code, args.verbose)
    if args.json:
        print_json(report.to_dict())
    else:
        print("\n".join(_lines(report)))
    return 0


def _request(args: argparse.Namespace) -> Request:
    from surveyproc.distributed.ingest import Request

    said = (
        "preset",
        "size",
        "dtype",
        "unit",
        "stretch",
        "size_column",
        "planes",
        "resample",
        "id",
        "ra",
        "dec",
    )
    return Request.of(
        args.tiles,
        args.sources,
        args.output,
        args.bands or (),
        zeropoints=zeropoints_of(args.zeropoint or ""),
        pixel_scale_arcsec=args.pixel_scale,
        hdu=int(args.hdu) if args.hdu and args.hdu.isdigit() else args.hdu,
        carry=args.carry,
        **{name: getattr(args, name) for name in said if getattr(args, name) is not None},
    )


def zeropoints_of(text: str) -> dict[str, float]:
    """Read ``g=22.5,r=22.4``, or one number for all bands, which is that of ``*``."""
    from surveyproc.errors import UsageError
    from surveyproc.ingest.tiles.units import EVERY_BAND

    found: dict[str, float] = {}
    for word in names(text):
        band, equals, value = word.rpartition("=")
        try:
            magnitude = float(value)
        except ValueError as error:
            raise UsageError(
                f"{word!r} is no zero point",
                where="--zeropoint",
                fix="for example --zeropoint g=22.5,r=22.5, or --zeropoint 22.5 for all bands",
            ) from error
        found[band if equals else EVERY_BAND] = magnitude
    return found


def _lines(report: TileIngestReport) -> list[str]:
    lines = outcome_lines(report, "sources", "cutouts")
    if report.quality:
        lines.append("quality of the cutouts (bits of the column quality):")
        lines += [f"  {count:>9,} {bit}" for bit, count in report.quality.items()]
    if report.printed_ids:
        lines.append(f"{report.printed_ids:,} ids were printed bytes (b'...'); they are stored without that")
    lines.append(f"{report.tiles_used:,} of {report.tiles:,} tiles gave cutouts")
    lines += [f"  tile {name}: {why}" for name, why in list(report.unusable_tiles.items())[:NAMED]]
    if (more := len(report.unusable_tiles) - NAMED) > 0:
        lines.append(f"  and {more:,} more: unusable_tiles in {report.output}/catalog.json")
    height, width, channels = report.image.shape
    lines.append(
        f"{report.output}: {report.image.dtype} {height} x {width} px, {channels} bands "
        f"({', '.join(report.image.bands)}), {report.partitions:,} partitions, {report.bytes / 1e6:,.1f} MB"
    )
    return [*lines, "next:", *next_lines(report.output, report.image)]


def next_lines(output: str, image: ImageSpec, tiles: bool = True) -> list[str]:
    """Say what can be done with a new catalog: flux needs a bundle that was trained on it."""
    command = f"  surveyproc run --input {shlex.quote(output)} --output NAME.run"
    if image.stretch != "none":
        return [command]
    from surveyproc.images.stretches import display_stretches

    names = display_stretches(image)
    how = f"ingest again with --stretch {' or '.join(names)} --dtype uint8, and another --output"
    if not tiles:
        how = "ingest JPEG or PNG for them"
    elif not names:
        how = f"no preset makes them of bands {', '.join(image.bands)} (surveyproc show draws them)"
    return [
        f"{command} --bundle BUNDLE      # one trained on flux of these bands",
        f"  the pixels are flux; the bundles that come along (gz2) need display images: {how}",
    ]


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    folder = Path(__file__).resolve().parent.parent / "ingest" / "presets"
    return sorted(path.stem for path in folder.glob("*.yaml"))
