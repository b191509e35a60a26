"""The command line: one file for each verb. Nothing heavy is imported before a verb runs."""
