"""Write a catalog of simulated cutouts, on every core, the same whatever their number."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pyarrow as pa

from surveyproc.catalog import Catalog, CatalogWriter, open_catalog
from surveyproc.cutouts import ImageSpec
from surveyproc.errors import ResourceError, UsageError
from surveyproc.simulate.marker import IDS_PER_SEED, mark_simulated
from surveyproc.simulate.survey import PIXELS, simulate_rows

UNIT_ROWS = 16
ROW_GROUP_BYTES = 8 << 20
SPEC = ImageSpec(
    encoding="raw", shape=(PIXELS, PIXELS, 3), dtype="uint8", bands=("R", "G", "B"), stretch="sdss_lupton"
)
_COLUMNS: list[tuple[str, pa.DataType, str, str]] = [
    ("object_id", pa.int64(), "", "Simulated galaxy"),
    ("ra", pa.float64(), "deg", "Right ascension, ICRS"),
    ("dec", pa.float64(), "deg", "Declination, ICRS"),
    ("pixel_scale_arcsec", pa.float64(), "arcsec", "Side of a pixel"),
    ("psf_fwhm_arcsec", pa.list_(pa.float32(), 3), "arcsec", "Seeing in g, r, i"),
    ("truth_type", pa.string(), "", "elliptical, lenticular, spiral, edge-on, ring, merger, irregular"),
    ("truth_mag_r", pa.float64(), "mag", "AB magnitude in r"),
    ("truth_petro_r90_arcsec", pa.float64(), "arcsec", "Petrosian radius with 90 % of the r-band light"),
    ("truth_position_angle", pa.float64(), "deg", "Major axis, from the image's x axis towards y"),
    ("truth_inclination", pa.float64(), "deg", "Inclination of the disc; null without a disc"),
    ("truth_axis_ratio", pa.float64(), "", "Minor over major axis of disc or spheroid"),
    ("truth_sersic_n", pa.float64(), "", "Sersic index of the spheroid"),
    ("truth_bulge_fraction", pa.float64(), "", "Spheroid's fraction of the r-band light"),
    ("truth_has_bar", pa.bool_(), "", "Whether there is a bar"),
    ("truth_has_ring", pa.bool_(), "", "Whether there is a ring"),
    ("truth_arms", pa.int8(), "", "Number of spiral arms"),
    ("truth_pitch", pa.float64(), "deg", "Pitch angle of the arms; null without arms"),
    ("truth_knots", pa.int16(), "", "Number of star-forming knots"),
    ("truth_dust_lane", pa.bool_(), "", "Whether there is a dust lane"),
    ("truth_is_merger", pa.bool_(), "", "Whether it is two galaxies"),
    (
        "truth_young_fraction",
        pa.float64(),
        "",
        "Young fraction of the disc's r-band light; null without a disc",
    ),
    ("truth_artifact", pa.string(), "", "none, satellite_trail, saturated_star, missing_band, unusable"),
]


def truth_schema() -> pa.Schema:
    """Return the columns of a simulated catalog beside ``image``, with units and descriptions."""
    fields = [
        pa.field(name, kind, metadata={"description": text} | ({"unit": unit} if unit else {}))
        for name, kind, unit, text in _COLUMNS
    ]
    return mark_simulated(pa.schema(fields))


def simulate_catalog(
    output: str | os.PathLike[str],
    n: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> Catalog:
    """Simulate a survey into a cutout catalog.

    Parameters
    ----------
    output : str or path
        Folder to create.
    n : int
        Galaxies, up to a million.
    seed : int
        The survey; galaxy k of a seed is the same in every catalog.
    progress : callable, optional
        Called with (galaxies done, ``n``).
    workers : int, optional
        Processes; the usable cores when not given. The catalog does not depend on it.

    Returns
    -------
    Catalog

    Raises
    ------
    UsageError
        When ``n`` or ``seed`` is out of range.
    InputError, ResourceError
        When the output cannot be written, or a worker died.
    """
    if not 1 <= n <= IDS_PER_SEED:
        raise UsageError(f"{n} galaxies asked for", fix=f"give a number from 1 to {IDS_PER_SEED:,}")
    if not 0 <= seed < 2**40:
        raise UsageError(f"the seed is {seed}", fix="give a seed from 0 to 2^40 - 1")
    schema = truth_schema()
    done = 0
    with CatalogWriter(str(output), SPEC, schema, row_group_bytes=ROW_GROUP_BYTES) as writer:
        for pixels, truths in _simulated(seed, n, workers or len(os.sched_getaffinity(0))):
            columns = {
                name: pa.array([t[name] for t in truths], schema.field(name).type) for name in schema.names
            }
            writer.write_pixels(pixels, columns)
            done += len(truths)
            if progress:
                progress(done, n)
    return open_catalog(str(output))


def _simulated(seed: int, n: int, workers: int) -> Iterator[tuple[np.ndarray, list[dict]]]:
    """Yield units in order; at most two per worker are in memory."""
    units = [range(start, min(start + UNIT_ROWS, n)) for start in range(0, n, UNIT_ROWS)]
    if workers == 1 or len(units) == 1:
        yield from (simulate_rows(seed, unit) for unit in units)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(units)), context, initializer=_follow_the_parent)
    try:
        pending: deque[Future] = deque()
        for unit in units:
            if len(pending) == 2 * workers:
                yield pending.popleft().result()
            pending.append(pool.submit(simulate_rows, seed, unit))
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise ResourceError(
            "a process that simulates galaxies died",
            where="most often the machine ran out of memory",
            fix="free some memory and give the same command again",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _follow_the_parent() -> None:
    """Leave interrupts to the parent, and end with it however it dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
