"""CPU time of decoding cutouts: the constants of ``surveyproc.runs.estimate.DECODE_MS``.

Exponential discs on noise (see run.py) at several sizes, as JPEG of quality 90 and as PNG, through the same
function that a run uses; CPU time of one thread, the best of several rounds. A straight line through the
sizes gives milliseconds for each call and for each megapixel.

    python jobs/bench/decode.py --px 64 128 256 424
"""

from __future__ import annotations

import argparse
import io
import time

import numpy as np
import pyarrow as pa
from PIL import Image
from run import make_pixels

from surveyproc.cutouts import ImageSpec
from surveyproc.images.decode import decode_batch

OPTIONS = {"jpeg": {"quality": 90}, "png": {}}
PIXELS = 4_000_000
ROUNDS = 5


def main() -> None:
    """Measure and print one line for each encoding and size, then the fit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--px", type=int, nargs="+", default=[64, 128, 256, 424])
    args = parser.parse_args()
    for encoding in OPTIONS:
        times = [decoding_ms(encoding, px) for px in args.px]
        for px, ms in zip(args.px, times):
            print(f"{encoding} {px} px: {ms:.3f} ms")
        megapixels = np.array(args.px) ** 2 / 1e6
        slope, call = np.polyfit(megapixels, times, 1, w=1 / np.array(times))
        print(f"{encoding}: {call:.2f} ms a call + {slope:.1f} ms a megapixel", flush=True)


def decoding_ms(encoding: str, px: int) -> float:
    """Milliseconds of one core for one image."""
    count = max(8, PIXELS // px**2)
    files = []
    for image in make_pixels(px, count):
        sink = io.BytesIO()
        Image.fromarray(image).save(sink, encoding, **OPTIONS[encoding])
        files.append(sink.getvalue())
    column, spec = pa.array(files, pa.binary()), ImageSpec(encoding, (px, px, 3), "uint8")
    rounds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        _, failures = decode_batch(column, spec)
        rounds.append((time.process_time() - started) / count * 1000)
        assert not failures
    return min(rounds)


if __name__ == "__main__":
    main()
