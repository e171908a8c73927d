"""How fast a network is in each form that can be shipped, beside the bars for it.

    python -m experiments.benchmarks.deploy

`km.benchmark` of V2 1.0 and V1 1.0 at 224 px, in one thread: forms take turns in one
process. A ratio is given by the medians of both, by their least times, and by the
medians and the least of what the processor worked. The bars are for the last: others
who work on the machine move that least. Written, a network at a time, to
experiments/results/benchmark_deploy.json.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import keras_mobilenets as km
from experiments.benchmarks.contenders import ROOT
from keras_mobilenets.printing import print_benchmark
from keras_mobilenets.storage import write_json
from keras_mobilenets.text import table

RESULT = ROOT / "experiments" / "results" / "benchmark_deploy.json"
CASES: list[dict[str, Any]] = [
    {"model": "mobilenet_v2", "alpha": 1.0, "resolution": 224},
    {"model": "mobilenet_v1", "alpha": 1.0, "resolution": 224},
]
BARS = {  # form, the one that it is compared with: at most so much of its time
    ("int8", "float32"): 0.5,
    ("float32", "keras"): 0.6,
    ("fused", "keras"): 0.75,
    ("onnx", "float32"): 1.1,
}


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where the forms of one benchmark stand against the bars, image by image."""
    times = {row["form"]: row for row in rows if row["batch"] == 1}
    return [
        {
            "ratio": f"{form} / {other}",
            "bar": bar,
            **{
                f"by_{key}": round(times[form][of] / times[other][of], 3)
                for key, of in (
                    ("median", "median_ms"),
                    ("least", "least_ms"),
                    ("cpu", "cpu_ms"),
                    ("least_cpu", "least_cpu_ms"),
                )
            },
        }
        for (form, other), bar in BARS.items()
        if form in times and other in times
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10, help="of each form")
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 32))
    parser.add_argument("--cases", type=int, nargs="*", default=range(len(CASES)))
    options = parser.parse_args()
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for index in options.cases:
        case = CASES[index]
        found = km.benchmark(**case, seconds=options.seconds, batches=options.batches)
        found["bars"] = ratios(found["rows"])
        print_benchmark(found)
        shown = [
            (*bar.values(), "yes" if bar["by_least_cpu"] <= bar["bar"] else "NO")
            for bar in found["bars"]
        ]
        header = [
            "batch 1",
            "at most",
            "by median",
            "by least",
            "by cpu",
            "by least cpu",
            "reached",
        ]
        print(f"\n{table(header, shown)}\n", flush=True)
        shape = "x".join(map(str, found["image"][:2]))
        results[f"{case['model']} {case['alpha']}, {shape}"] = found
        RESULT.parent.mkdir(exist_ok=True)
        write_json(RESULT, results)


if __name__ == "__main__":
    main()
