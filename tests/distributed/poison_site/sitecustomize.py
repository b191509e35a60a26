"""Poison every Python process that has this folder on its path, see `poisoning`."""

import os
import sys

if "SURVEYPROC_POISON" in os.environ:
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from poisoning import Finder

    sys.meta_path.insert(0, Finder())
