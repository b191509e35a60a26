"""``surveyproc run``: the main job."""

from __future__ import annotations

import argparse

HELP = "run bundles over a cutout catalog; the same command again resumes"
EXAMPLES = """
surveyproc run --input gz.cat --output out.run
surveyproc run --input gz.cat --output out.run --bundle gz2 cluster=local engine.views=1
surveyproc run --input gz.cat --output out.run --bundle hf_hub:mwalmsley/zoobot-encoder-convnext_nano
surveyproc run --input gz.cat --output out.run cluster=none output.carry=[psf_fwhm_arcsec]
"""
EPILOG = "settings (defaults): surveyproc run --settings"
OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--input", metavar="CAT", help="cutout catalog (folder or URI)")
    parser.add_argument("--output", metavar="RUN", help="run folder, new or to resume")
    parser.add_argument(
        "--bundle",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="bundles: name, path or URI (default gz2); or an encoder: hf_hub:ORG/NAME, or a folder of one",
    )
    parser.add_argument("--accept-code", action="store_true", help="resume a run begun by another version")
    parser.add_argument("--force-domain", action="store_true", help="run outside the bundles' domain")
    parser.add_argument("--verbose", action="store_true", help="let Ray talk")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--settings", action="store_true", help="list the settings and their defaults")


def run(args: argparse.Namespace) -> int:
    """Run, and say what was written."""
    from surveyproc.cli._common import require, resumable, split_overrides

    if args.settings:
        from surveyproc.config.compose import setting_lines

        print("\n".join(setting_lines("run", args.overrides)))
        return 0
    require(args, "input", "output")
    bundles, overrides = split_overrides(args.bundle, args.overrides)
    from surveyproc import api
    from surveyproc.cli._output import print_json

    with resumable():
        result = api.run(
            args.input,
            args.output,
            bundles,
            overrides,
            accept_code=args.accept_code,
            force_domain=args.force_domain,
            verbose=args.verbose,
        )
    if args.json:
        print_json({k: v for k, v in vars(result).items() if k != "manifest"})
        return 0
    if result.nothing_to_do:
        print(f"{result.uri} is finished: nothing to do ({result.rows:,} rows, {result.rejects:,} rejects)")
    else:
        rate = result.rows / max(result.seconds, 1e-9)
        print(
            f"{result.rows:,} rows + {result.rejects:,} rejects in {result.seconds:.1f} s ({rate:,.0f} rows/s)"
        )
    for name, entry in result.manifest["tables"].items():
        print(f"  {name:22} {entry['rows']:>12,} rows  {result.uri}/{name}/")
    print(f"next:\n  surveyproc verify {result.uri}\n  surveyproc report {result.uri}")
    table = "morphology" if "morphology" in result.manifest["tables"] else "embeddings"
    print(f'  surveyproc sql {result.uri} "SELECT * FROM {table} LIMIT 5"')
    return 0
