"""Entry point for Ray's own job submission: the main job, with the code of this checkout.

The working directory is shipped (.rayignore leaves out what a job does not need); torch, ray and the rest are
the cluster's own. ``surveyproc submit`` does the same with a name for the job that makes a second call attach.

    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python jobs/run.py --input s3://bucket/gz.cat --output s3://bucket/out.run [group.key=value ...]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ON_THIS_CLUSTER = ["cluster=address", "cluster.address=auto"]


def main() -> int:
    """Run ``surveyproc run`` with the words given, on the cluster that this job is on."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    from surveyproc.cli.main import main as surveyproc

    words = sys.argv[1:]
    chosen = any(word.startswith("cluster=") for word in words)
    return surveyproc(["run", *words, *([] if chosen else ON_THIS_CLUSTER)])


if __name__ == "__main__":
    sys.exit(main())
