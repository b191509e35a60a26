"""``surveyproc submit``: the main job on a cluster, through Ray's job server."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

HELP = "run on a Ray cluster: submit the job, follow it; the same command again attaches or resumes"
EXAMPLES = """
surveyproc submit --address http://head:8265 --input s3://bucket/gz.cat --output s3://bucket/out.run
surveyproc submit --input s3://bucket/gz.cat --output s3://bucket/out.run --bundle my-bundle/ cluster.actors=64
surveyproc submit --input s3://bucket/gz.cat --output s3://bucket/out.run --no-wait
"""
EPILOG = """what is shipped: this package and bundles of this machine, no dependencies: the cluster's environment has
torch, ray and the rest. Credentials are not shipped: buckets are opened with the cluster's own.
RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH open a cluster that wants a token.
settings (defaults): surveyproc run --settings"""
OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "--address", metavar="URL", help="the cluster's dashboard, http://HEAD:8265 (default: RAY_ADDRESS)"
    )
    parser.add_argument("--input", metavar="CAT", help="cutout catalog in a bucket (URI)")
    parser.add_argument("--output", metavar="RUN", help="run folder in a bucket, new or to resume")
    parser.add_argument(
        "--bundle",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="bundles: name, URI, or a folder here, which is shipped (default gz2)",
    )
    parser.add_argument(
        "--shared-filesystem", action="store_true", help="local paths are the same on every node"
    )
    parser.add_argument("--no-wait", action="store_true", help="submit and return")
    parser.add_argument("--python", default="python", help="interpreter on the cluster (default python)")
    parser.add_argument("--accept-code", action="store_true", help="resume a run begun by another version")
    parser.add_argument("--force-domain", action="store_true", help="run outside the bundles' domain")
    parser.add_argument("--verbose", action="store_true", help="let Ray talk")
    parser.add_argument("--json", action="store_true", help="print the job's end as JSON, its log to stderr")


def run(args: argparse.Namespace) -> int:
    """Submit or attach; exit with the code of the job's driver."""
    from surveyproc.cli._common import require, split_overrides
    from surveyproc.cli._output import print_json
    from surveyproc.config.run import load_run_config
    from surveyproc.distributed import submit as jobs
    from surveyproc.distributed.preflight import is_local
    from surveyproc.distributed.shipping import refuse_secrets, require_shippable, staged
    from surveyproc.errors import UsageError

    require(args, "input", "output")
    bundles, overrides = split_overrides(args.bundle, args.overrides)
    address = args.address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")
    if not address:
        raise UsageError("--address must be given", fix="the cluster's dashboard: --address http://HEAD:8265")
    if args.storage:
        raise UsageError(
            "submit sends no credentials: the cluster's dashboard would show them",
            where="--storage",
            fix="leave it out, and give the nodes a role or the variables (AWS_ENDPOINT_URL, AWS_PROFILE, ...)",
        )
    if any(o.startswith(("cluster=", "cluster.kind=", "cluster.address=")) for o in overrides):
        raise UsageError(
            "submit runs on the cluster that it submits to",
            where=" ".join(o for o in overrides if o.startswith("cluster")),
            fix="leave it out; other settings of the cluster (cluster.actors=8) are fine",
        )
    uris = [("--input", args.input), ("--output", args.output)]
    refuse_secrets([*uris, *(("--bundle", name) for name in bundles or [])])
    require_shippable(uris, args.shared_filesystem)
    if args.shared_filesystem:
        uris = [(flag, os.path.abspath(uri) if is_local(uri) else uri) for flag, uri in uris]
        overrides = [*overrides, "cluster.shared_filesystem=true"]
    load_run_config(["cluster=address", "cluster.address=auto", *overrides])
    flags = [
        f"--{name}"
        for name in ("accept-code", "force-domain", "verbose")
        if getattr(args, name.replace("-", "_"))
    ]
    client = jobs.connect(address)
    with staged(bundles or []) as (package, names):
        words = jobs.run_words(uris[0][1], uris[1][1], names, flags, overrides)
        found = jobs.submit(client, words, uris[1][1], package, args.python)
    print(f"{'attached to' if found.attached else 'submitted'} {found.id} on {address}", file=sys.stderr)
    result: dict[str, Any] = {
        "submission_id": found.id,
        "attached": found.attached,
        "status": None,
        "exit_code": None,
    }
    if not args.no_wait:
        log = sys.stderr if args.json else sys.stdout
        try:
            result["status"], result["exit_code"] = jobs.follow(
                client, found.id, lambda text: print(text, end="", file=log, flush=True)
            )
        except KeyboardInterrupt:
            print(
                f"\ndetached; {found.id} goes on. The same command attaches again, "
                f"`ray job stop --address {address} {found.id}` ends it",
                file=sys.stderr,
            )
            raise
        print(f"{found.id} {result['status']}", file=sys.stderr)
    if args.json:
        print_json(result)
    elif args.no_wait:
        print(
            f"the same command without --no-wait follows it; to end it:\n  ray job stop --address {address} {found.id}"
        )
    return int(result["exit_code"] or 0)
