"""Searches over the published networks: trials until an oracle finds the best.

An offline benchmark: the accuracy of a trial is the one that the authors published
(slim's tables, ImageNet top-1), so nothing is trained. Each problem is a space and
a budget; the optimum is the best published network within it. Counted are the trials
up to the optimum, that one included, over many seeds.

Hyperband gets the published accuracy at every number of epochs, for there are no
published curves; its promotions count as trials. The columns with a prior expect of
V1 what V2's table suggests and of V2 what V1's does, so that none knows the answer.

    python -m experiments.search_oracles
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_mobilenets.architecture.published import published
from keras_mobilenets.storage import write_text
from keras_mobilenets.text import table
from keras_mobilenets.tuning.points import POINT
from keras_mobilenets.tuning.prior import published_prior
from keras_mobilenets.tuning.space import Space

RESULT = Path(__file__).parent / "results" / "search_oracles.json"
SEEDS = 51
MAX_EPOCHS = 9  # of hyperband

V1, V2 = "mobilenet_v1", "mobilenet_v2"
OTHER = {V1: V2, V2: V1}
V2_GRID = {"alphas": (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)}  # with five resolutions: 6 x 5
V1_GRID = {
    "names": (V1,),
    "alphas": (0.25, 0.5, 0.75, 1.0),
    "resolutions": (128, 160, 192, 224),
}
BOTH = {**V1_GRID, "names": (V1, V2), "alphas": (0.5, 0.75, 1.0)}

# All feasible points are published: a latency is, where one is asked for.
PROBLEMS = {
    "V2 6x5, 18 ms": Space(**V2_GRID, max_latency_ms=18),  # excludes 70 %
    "V2 6x5, 45 ms": Space(**V2_GRID, max_latency_ms=45),
    "V2 6x5, published": Space(**V2_GRID, max_latency_ms=1000),
    "V2 4x5, 100 M mult-adds": Space(max_macs=100e6),
    "V1 4x4": Space(**V1_GRID),
    "V1 4x4, 2 M parameters": Space(**V1_GRID, max_params=2e6),
    "both 3x4": Space(**BOTH),
    "both 3x4, 150 M mult-adds": Space(**BOTH, max_macs=150e6),
}


def crossed(name: str, alpha: float, resolution: int) -> float:
    """What the other network's published accuracies lead one to expect."""
    return published_prior(OTHER[name], alpha, resolution)


# How each column is searched.
ORACLES: dict[str, dict[str, Any]] = {
    "grid": {"kind": "grid"},
    "random": {"kind": "random"},
    "bayesian": {"kind": "bayesian"},
    "hyperband": {"kind": "hyperband"},
    "random, prior": {"kind": "random", "prior": crossed},
    "bayesian, prior": {"kind": "bayesian", "prior": crossed},
    "hyperband, prior": {"kind": "hyperband", "prior": crossed},
}


def trials(oracle: Any) -> Iterator[tuple]:
    """The networks that an oracle proposes, told what they are published to reach."""
    top1 = {point[:3]: point.top1 / 100 for point in published()}
    while (trial := oracle.create_trial("tuner0")).status != "STOPPED":
        key = tuple(trial.hyperparameters.values[field] for field in POINT)
        oracle.update_trial(trial.trial_id, {"val_accuracy": top1[key]})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        yield key


def optimum(space: Space) -> tuple:
    top1 = {point[:3]: point.top1 for point in published()}
    return max((point.key for point in space.feasible), key=top1.__getitem__)


def trials_to_optimum(space: Space, seed: int, **search: Any) -> int | None:
    """How many trials a search takes; None where it ends without the optimum."""
    from keras_mobilenets.tuning.oracles import make_oracle

    oracle = make_oracle(space=space, seed=seed, max_epochs=MAX_EPOCHS, **search)
    best = optimum(space)
    return next((n for n, key in enumerate(trials(oracle), 1) if key == best), None)


def row(problem: str, column: str, seeds: int = SEEDS) -> dict[str, Any]:
    """One problem searched by one oracle with seeds 0, 1, ...; the grid has none."""
    space, search = PROBLEMS[problem], ORACLES[column]
    start = time.perf_counter()
    counts = [
        trials_to_optimum(space, seed, **search)
        for seed in range(1 if column == "grid" else seeds)
    ]
    seconds = time.perf_counter() - start
    return {
        "problem": problem,
        "feasible": len(space.feasible),
        "of": len(space.names) * len(space.alphas) * len(space.resolutions),
        "optimum": list(optimum(space)),
        "oracle": column,
        "found": sum(count is not None for count in counts),
        "median": statistics.median(count for count in counts if count),
        "mean": round(statistics.mean(count for count in counts if count), 2),
        "milliseconds": round(1000 * seconds / len(counts)),
        "trials": counts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    seeds = parser.parse_args().seeds
    rows = [row(problem, column, seeds) for problem in PROBLEMS for column in ORACLES]
    lines = []
    for problem in PROBLEMS:
        found = {r["oracle"]: r for r in rows if r["problem"] == problem}
        size = f"{found['grid']['feasible']} of {found['grid']['of']}"
        lines.append((problem, size, *(r["median"] for r in found.values())))
    print(table(["median trials", "feasible", *ORACLES], lines))
    missed = [r for r in rows if r["found"] < len(r["trials"])]
    print("Every search found the optimum." if not missed else f"Not found: {missed}")
    for column in ORACLES:
        took = [r["milliseconds"] for r in rows if r["oracle"] == column]
        print(f"{column}: {statistics.median(took):g} ms a search")
    text = json.dumps({"title": __doc__.splitlines()[0], "rows": rows}, indent=1)
    write_text(RESULT, text + "\n")


if __name__ == "__main__":
    main()
