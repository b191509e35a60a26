"""Stretches: flux to display pixels, as pure functions of numpy arrays and torch tensors alike.

A preset is a name with parameters and a version; what it does never changes while the version stays. All arithmetic is
float64, so that numpy and torch, CPU and GPU round to the same bytes.
"""

from surveyproc.images.stretches.catalogs import display_stretches as display_stretches
from surveyproc.images.stretches.catalogs import stretch_problems as stretch_problems
from surveyproc.images.stretches.catalogs import stretched as stretched
from surveyproc.images.stretches.catalogs import stretched_spec as stretched_spec
from surveyproc.images.stretches.presets import STRETCHES as STRETCHES
from surveyproc.images.stretches.presets import Stretch as Stretch
from surveyproc.images.stretches.presets import find_stretch as find_stretch
