"""Runs: the plan, the ledger of attempts and commits, finalising, verifying."""

from surveyproc.runs.run import Run, is_run, open_run

__all__ = ["Run", "is_run", "open_run"]
