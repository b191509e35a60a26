"""Scheduling: the units of work on this machine's cores or on a Ray cluster. Only this room imports ray."""
