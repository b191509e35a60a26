"""Entry point of ``surveyproc``: finds the verb, parses, and turns errors into three lines."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import signal
import sys
from typing import NoReturn

from surveyproc import __version__, cli
from surveyproc.errors import SurveyprocError, UsageError, did_you_mean

ORDER = (
    "demo",
    "doctor",
    "ingest",
    "repack",
    "plan",
    "run",
    "submit",
    "status",
    "verify",
    "repair",
    "report",
    "sql",
    "cone",
    "show",
    "similar",
    "evaluate",
    "triage",
    "publish",
)
LOCAL = ("demo", "models")
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """Raises instead of exiting, and suggests the flag that was meant."""

    def error(self, message: str) -> NoReturn:
        """Turn argparse's message into a `UsageError`."""
        flags = [flag for action in self._actions for flag in action.option_strings]
        unknown = [w for w in message.split() if w.startswith("--")]
        hint = did_you_mean(unknown[0], flags) if message.startswith("unrecognized") and unknown else ""
        raise UsageError(message + hint, where=self.prog, fix=f"see `{self.prog} --help`")


def verbs() -> list[str]:
    """Names of the verbs: the modules of this package that do not start with an underscore."""
    names = {m.name for m in pkgutil.iter_modules(cli.__path__)} - {"main"}
    names = {n for n in names if not n.startswith("_")}
    return [n for n in ORDER if n in names] + sorted(names - set(ORDER))


def main(argv: list[str] | None = None) -> int:
    """Run one verb.

    Returns
    -------
    int
        0 done, 2 usage, 3 input, 4 partial, 5 resources, 130 interrupted.
    """
    words = sys.argv[1:] if argv is None else argv
    debug = "--debug" in words
    words = [w for w in words if w != "--debug"]
    try:
        return _dispatch(words)
    except SurveyprocError as error:
        if debug:
            raise
        print(f"surveyproc: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nsurveyproc: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(words: list[str]) -> int:
    known = verbs()
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview(known))
        return 0
    if words[0] == "--version":
        print(f"surveyproc {__version__}")
        return 0
    if words[0] not in known:
        raise UsageError(
            f"unknown command {words[0]!r}.{did_you_mean(words[0], known)}",
            where=" ".join(["surveyproc", *words[:2]]),
            fix="see `surveyproc --help`",
        )
    module = importlib.import_module(f"surveyproc.cli.{words[0]}")
    parser = Parser(
        prog=f"surveyproc {words[0]}",
        usage=argparse.SUPPRESS,
        description=f"{module.HELP}\n\nexamples:\n{_indented(module.EXAMPLES)}",
        epilog=getattr(module, "EPILOG", None),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    if getattr(module, "OVERRIDES", False):
        parser.add_argument(
            "overrides", nargs="*", metavar="group.key=value", help="settings; see conf/ for all of them"
        )
    if words[0] not in LOCAL:
        parser.add_argument(
            "--storage",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="credential or endpoint of the store (key, secret, token, endpoint_url, ...); may be repeated",
        )
    signal.signal(signal.SIGTERM, _terminate)
    try:
        args = parser.parse_intermixed_args(words[1:])
        if not getattr(args, "storage", None):
            return int(module.run(args))
        from surveyproc.stores import configured_with, parse_options

        with configured_with(parse_options(args.storage)):
            return int(module.run(args))
    except SystemExit as stop:
        return int(stop.code or 0)


def _terminate(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _overview(known: list[str]) -> str:
    lines = ["surveyproc: survey-scale galaxy morphology, embeddings and similarity search", "", "commands:"]
    for verb in known:
        lines.append(f"  {verb:10} {importlib.import_module(f'surveyproc.cli.{verb}').HELP}")
    lines += ["", "first steps:", "  surveyproc demo", "  surveyproc COMMAND --help"]
    return "\n".join(lines)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.strip().splitlines())


if __name__ == "__main__":
    sys.exit(main())
