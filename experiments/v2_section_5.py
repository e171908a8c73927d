"""MobileNetV2 section 5: memory-efficient inference, counted and measured.

Sandler et al. 2018 (arXiv:1801.04381), section 5: a bottleneck is a sum over groups
of its wide channels, of which one has to be in memory at a time; two to five of them
are said to pay. Here MobileNetV2 1.0, batch norm folded (`km.fuse`), as it is and by
`km.split`.

*Counted* is `km.cost(..., splits=)` times the batch: what the groups save of the
wide tensors of the largest bottleneck. *Measured* is the peak of the resident set
(VmHWM) of a fresh process for each case, and the shortest of several runs, the cases
of one size in turns. `python -m experiments.v2_section_5` wants a quiet machine, and
Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from experiments.report import keep
from keras_mobilenets.architecture import cost
from keras_mobilenets.text import table

NAME, ALPHA = "mobilenet_v2", 1.0
CASES = ((448, 16), (896, 4), (224, 1))  # pixels, images at once
SPLITS = (None, 2, 3, 5)  # None: as it is
LARGE = 448  # below, what is saved is little beside TensorFlow's own memory
RUNS, PROCESSES = 5, 3  # the best of the runs of all processes counts


def peak_memory_mb() -> float:
    """The largest resident set that this process has had, in millions of bytes."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e6


def run_case(resolution: int, batch: int, splits: int | None, runs: int) -> None:
    """In a process of its own: seconds of the shortest run and the peak, as JSON."""
    import numpy as np
    import tensorflow as tf

    import keras_mobilenets as km

    model = km.fuse(km.build(NAME, alpha=ALPHA, resolution=resolution))
    if splits:
        model = km.split(model, splits)
    images = np.zeros((batch, resolution, resolution, 3), "float32")
    images += np.linspace(-1, 1, resolution, dtype="float32")[:, None]
    images = tf.constant(images)
    call = tf.function(lambda x: model(x, training=False))
    seconds = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        call(images).numpy()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds": min(seconds[1:]), "peak_mb": peak_memory_mb()}))


def measure_case(
    resolution: int, batch: int, splits: int | None, runs: int
) -> dict[str, float]:
    """The same, asked of a fresh process."""
    arguments = [str(each) for each in (resolution, batch, splits or 0, runs)]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.v2_section_5", "--case", *arguments],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def counted_mb(resolution: int, batch: int, splits: int) -> float:
    price = cost(NAME, alpha=ALPHA, resolution=resolution, splits=splits)
    return price.peak_memory * batch / 1e6


def measure(cases: Any, processes: int, runs: int) -> list[dict[str, Any]]:
    rows = []
    for resolution, batch in cases:
        found: dict[int | None, list[dict[str, float]]] = {}
        for _ in range(processes):
            for splits in SPLITS:
                one = measure_case(resolution, batch, splits, runs)
                found.setdefault(splits, []).append(one)
        whole = found[None]
        for splits, each in found.items():
            seconds, peak = (
                min(one[k] for one in each) for k in ("seconds", "peak_mb")
            )
            row = {
                "resolution": resolution,
                "batch": batch,
                "splits": splits,
                "seconds": round(seconds, 4),
                "peak_mb": round(peak, 1),
            }
            if splits:
                base = min(one["seconds"] for one in whole)
                saved = min(one["peak_mb"] for one in whole) - peak
                counted = counted_mb(resolution, batch, 1) - counted_mb(
                    resolution, batch, splits
                )
                row |= {
                    "time_ratio": round(seconds / base, 3),
                    "counted_saving_mb": round(counted, 1),
                    "measured_saving_mb": round(saved, 1),
                    "measured_of_counted": round(saved / counted, 3),
                }
            rows.append(row)
    return rows


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Titles and tables, as printed and as docs/experiments.md has them."""
    keys = ("time_ratio", "counted_saving_mb", "measured_saving_mb")
    return {
        "MobileNetV2 1.0 in splits": table(
            ["px", "batch", "splits", "ms", "peak MB", "time ratio", "counted MB saved",
             "measured"],
            [
                (
                    row["resolution"], row["batch"], row["splits"],
                    f"{1e3 * row['seconds']:.0f}", f"{row['peak_mb']:.0f}",
                    *(row.get(key) for key in keys),
                )
                for row in results["rows"]
            ],
        )
    }  # fmt: skip


def text(results: dict[str, Any]) -> str:
    """What two groups do to large images, in words."""
    rows = [r for r in results["rows"] if r["splits"] == 2 and r["resolution"] >= LARGE]
    saved = [round(100 * row["measured_of_counted"]) for row in rows]
    ratios = [row["time_ratio"] for row in rows]
    return (
        f"at {LARGE} px and more, 2 splits save at least {min(saved)} % of the memory "
        f"that is counted, in {min(ratios)} to {max(ratios)} of the time"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs=4, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, default=PROCESSES, help="of each case")
    options = parser.parse_args()
    if options.case:
        resolution, batch, splits, runs = options.case
        return run_case(resolution, batch, splits or None, runs)
    rows = measure(CASES, options.processes, RUNS)
    results = {
        "title": __doc__.splitlines()[0],
        "settings": {
            "name": NAME, "alpha": ALPHA, "runs": RUNS, "processes": options.processes,
            "cores": os.cpu_count(),
        },
        "rows": rows,
    }  # fmt: skip
    for title, text in tables(results).items():
        print(f"{title}\n\n{text}\n")
    keep(__file__, results)


if __name__ == "__main__":
    main()
