"""What strategies and checkpoints cost, side by side in one run.

    python -m experiments.benchmarks.distribution [--only steps checkpoints]

Steps of training, each contender in a process of its own and on the same random
images, `km.compile` and `fit` as in `km.train`, the loss read after every step:

- device: no strategy;
- replica: `make_strategy("mirrored", 1)`; the bar is 5 % of a step over `device`;
- replicas: `make_strategy("mirrored", 2)`, half of the batch on each, with batch norm
  synchronised, as in `workers`;
- replicas_own: the same with statistics of each replica's own, as slim's recipes have;
- replicas_own_each: so, with a whole batch on each, as `km.train` gives them; the bar
  is 1.1 of `device` for an image;
- workers: two processes of `make_strategy("multi_worker")` on the loopback
  interface, half of the batch on each;
- apart: two processes at the same time, half of the batch each, who know nothing of
  one another: the work of `workers` without what they say to each other;
- apart_synchronized: the same with the batch norm of several replicas, which computes
  more.

Contenders take turns, in an order that turns round; a turn is a few steps. Ratios
are for an image, medians over turns, of seconds and of the processor's seconds of all
processes.
`replicas` and `workers` also time all-reduces by themselves, many one after another.

Checkpoints: the quick start by `km.train`, with the time in `Checkpoints.save` taken
out of the whole; and V2 1.0 at 224 pixels, one save against 1,000 steps, the default
interval. The bar is 2 % of the run. Written to
experiments/results/benchmark_distribution.json.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from experiments.benchmarks.contenders import (
    ROOT,
    Contender,
    serve,
)

RESULT = ROOT / "experiments" / "results" / "benchmark_distribution.json"
CASES = [  # name, alpha, resolution, batch size of all replicas together
    ("mobilenet_v2", 0.35, 96, 32),
    ("mobilenet_v1", 0.25, 96, 32),
]
LARGE = ("mobilenet_v2", 1.0, 224, 32)
STRATEGIES: dict[str, tuple[str, int | None]] = {  # of a contender's processes
    "device": ("none", None),
    "replica": ("mirrored", 1),
    "replicas": ("mirrored", 2),
    "replicas_own": ("mirrored", 2),
    "replicas_own_each": ("mirrored", 2),
    "workers": ("multi_worker", None),
    "apart": ("none", None),
    "apart_synchronized": ("none", None),
}
PAIRS = ("workers", "apart", "apart_synchronized")  # two processes each
HALVES = ("replicas", "replicas_own", *PAIRS)  # half of the batch on each
OWN = ("replicas_own", "replicas_own_each")  # not synchronised
STEPS = 6  # of a turn
MESSAGES = {1: 100, 2**16: 50, 2**20: 10, 2**22: 5}  # float32 numbers: times in a row
BARS = {
    "replica_overhead": 0.05,
    "own_statistics_per_image": 1.1,
    "checkpoint_share": 0.02,
}


def _model(name: str, alpha: float, size: int, synchronized: bool = True) -> Any:
    import keras_mobilenets as km

    model = km.build(name, alpha=alpha, resolution=size)
    recipe = {"mobilenet_v1": "slim_v1", "mobilenet_v2": "slim_v2"}[name]
    return km.compile(
        model, recipe, steps_per_epoch=10_000, synchronize_batch_norm=synchronized
    )


def _data(size: int, batch: int) -> Any:
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (batch, size, size, 3)).astype("float32")
    return tf.data.Dataset.from_tensors((x, rng.integers(0, 1000, batch))).repeat()


def _timed_steps(model: Any, data: Any, steps: int = STEPS) -> tuple[list[float], ...]:
    """Seconds, and the processor's seconds, of each step of a `fit`."""
    import keras

    class Clock(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.times = []

        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])  # as `train` does, to stop where it is no number
            self.times.append((time.perf_counter(), time.process_time()))

    clock = Clock()
    # The first step of every fit starts the data anew and is not counted.
    model.fit(data, steps_per_epoch=steps + 1, verbose=0, callbacks=[clock])
    return tuple(
        [b - a for a, b in zip(row, row[1:], strict=False)]
        for row in zip(*clock.times, strict=True)
    )


def _all_reduce(strategy: Any, numbers: int, times: int) -> float:
    """Seconds of one of many all-reduces in a row."""
    import tensorflow as tf

    @tf.function
    def all_of_them() -> Any:
        def one_replica() -> Any:
            x = tf.ones([numbers])
            for _ in range(times):
                x = 0.5 * tf.distribute.get_replica_context().all_reduce("SUM", x)
            return x

        return strategy.run(one_replica)

    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        strategy.experimental_local_results(all_of_them())[0].numpy()
        seconds.append((time.perf_counter() - start) / times)
    return statistics.median(seconds[1:])


def _step_commands(
    which: str, name: str, alpha: float, size: int, batch: int
) -> dict[str, Callable[[], Any]]:
    """What the process of a contender answers to."""
    from keras_mobilenets.training import batch_norm, strategies

    strategy = strategies.make_strategy(*STRATEGIES[which])
    data = _data(size, batch // 2 if which in HALVES else batch)
    if which in ("replicas", "workers", *OWN):
        images = data
        data = strategy.distribute_datasets_from_function(lambda context: images)
    with strategy.scope():
        model = _model(name, alpha, size, which not in OWN)
    if which == "apart_synchronized":
        batch_norm._replicas = lambda: 2  # all-reduces of one replica cost nothing
        for layer in batch_norm.batch_norms(model):
            layer.call = batch_norm.make_call(layer, synchronized=True)
    return {
        "steps": lambda: _timed_steps(model, data),
        "messages": lambda: {
            4 * numbers: _all_reduce(strategy, numbers, times)
            for numbers, times in MESSAGES.items()
        },
    }


class Group:
    """The processes of one contender, which do everything at the same time."""

    def __init__(self, which: str, case: tuple, pool: ThreadPoolExecutor):
        from keras_mobilenets.cluster import VARIABLE, environment_of, local_tasks

        tasks = local_tasks(2) if which in PAIRS else [None]
        self.pool = pool
        self.processes = []
        for task in tasks:
            config = environment_of(task)[VARIABLE] if which == "workers" else ""
            arguments = [config, which, *map(str, case)]
            self.processes.append(Contender(__spec__.name, arguments))

    def ask(self, command: str) -> list[Any]:
        return list(self.pool.map(lambda each: each.ask(command), self.processes))

    def close(self) -> None:
        list(self.pool.map(Contender.close, self.processes))


def measure_steps(case: tuple, contenders: Iterable[str], turns: int) -> dict[str, Any]:
    """Seconds of a step of every contender, and ratios to `device`, turn by turn."""
    with ThreadPoolExecutor(2) as pool:
        live = {which: Group(which, case, pool) for which in contenders}
        for group in live.values():
            group.ask("steps")  # traces
        order = list(live)
        seconds = {which: [] for which in live}
        processor = {which: [] for which in live}
        for _ in range(turns):
            for which in order:
                answers = live[which].ask("steps")
                walls, cpus = zip(*answers, strict=True)
                seconds[which].append(max(map(statistics.median, walls)))
                processor[which].append(sum(map(statistics.mean, cpus)))
            order.reverse()
        figures = {}
        for which, group in live.items():
            images = 2 if which == "replicas_own_each" else 1
            figures[which] = {
                "step_s": round(statistics.median(seconds[which]), 5),
                "cpu_s": round(statistics.median(processor[which]), 5),
                "of_device": round(
                    _ratio(seconds[which], seconds["device"]) / images, 4
                ),
                "cpu_of_device": round(
                    _ratio(processor[which], processor["device"]) / images, 4
                ),
                "turns": turns,
            }
            if which in ("replicas", "workers"):
                (messages, *_) = group.ask("messages")
                figures[which]["all_reduce_s"] = {
                    size: round(value, 6) for size, value in messages.items()
                }
        for group in live.values():
            group.close()
    return figures


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _quick_start(**settings: Any) -> dict[str, Any]:
    """`km.train` on the digits, and its share in `Checkpoints.save`."""
    import keras_mobilenets as km
    from keras_mobilenets.training import job

    seconds, processor = [], []

    class Timed(job.Checkpoints):
        def save(self, *arguments: Any) -> None:
            start, cpu = time.perf_counter(), time.process_time()
            super().save(*arguments)
            seconds.append(time.perf_counter() - start)
            processor.append(time.process_time() - cpu)

    kept, job.Checkpoints = job.Checkpoints, Timed
    try:
        with tempfile.TemporaryDirectory() as folder:
            begun = time.process_time()
            run = km.train(workdir=f"{folder}/run", verbose=False, **settings)
            used = time.process_time() - begun
            timing = json.loads((run.workdir / "timing.json").read_text())
    finally:
        job.Checkpoints = kept
    epochs = run.report["epochs"]
    return {
        "saves": len(seconds),
        "save_s": round(statistics.median(seconds), 4),
        "save_s_first": round(seconds[0], 4),
        "save_s_max": round(max(seconds), 4),
        "run_s": timing["training"],
        "epoch_s": round((timing["training"] - sum(seconds)) / epochs, 3),
        "share": round(sum(seconds) / timing["training"], 5),
        "cpu_share": round(sum(processor) / used, 5),
    }


def _large(case: tuple, turns: int) -> dict[str, Any]:
    """One save of a large network against the steps of the default interval."""
    from keras_mobilenets.execution import Execution
    from keras_mobilenets.training.checkpoints import Checkpoints

    name, alpha, size, batch = case
    model, data = _model(name, alpha, size), _data(size, batch)
    steps, saves = [], []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder) / "checkpoints"
        checkpoints = Checkpoints(folder)
        for turn in range(turns + 1):
            wall, _ = _timed_steps(model, data, 3)
            start = time.perf_counter()
            checkpoints.save(model, turn, {"epoch": 0, "step": turn, "log": []}, None)
            saves.append(time.perf_counter() - start)
            steps += wall if turn else []  # the first traces
        size = checkpoints.path(turns).stat().st_size
    step, save = statistics.median(steps), statistics.median(saves)
    return {
        "save_s": round(save, 4),
        "save_s_max": round(max(saves), 4),
        "file_mb": round(size / 1e6, 2),
        "step_s": round(step, 4),
        "interval": Execution.checkpoint_steps,
        "share": round(save / (save + Execution.checkpoint_steps * step), 6),
    }


def measure_checkpoints(large: tuple = LARGE, turns: int = 5, **settings: Any) -> dict:
    """Shares of a run that saving takes: the quick start's and a large network's."""
    return {
        "quick start": _quick_start(**settings),
        " ".join(map(str, large)): _large(large, turns),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=15, help="of each contender")
    parser.add_argument("--only", nargs="*", default=["steps", "checkpoints"])
    parser.add_argument(
        "--contenders",
        nargs="*",
        default=list(STRATEGIES),
        help="fewer are printed, not written",
    )
    parser.add_argument("--serve", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        config, which, name, *numbers = options.serve
        if config:
            os.environ["TF_CONFIG"] = config
        alpha, size, batch = float(numbers[0]), int(numbers[1]), int(numbers[2])
        return serve(_step_commands(which, name, alpha, size, batch))

    from keras_mobilenets.machine import about_machine
    from keras_mobilenets.text import table

    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}

    def keep(**figures: Any) -> None:
        results.update(figures, machine=about_machine(), bars=BARS)
        beside = RESULT.with_suffix(".tmp")
        beside.write_text(json.dumps(results, indent=2) + "\n")
        beside.replace(RESULT)

    if "steps" in options.only:
        steps = {}
        for case in CASES:
            figures = measure_steps(case, options.contenders, options.turns)
            steps[" ".join(map(str, case))] = figures
            header = [
                f"{case[0]} {case[1]}, {case[2]} px, batch {case[3]}", "step s",
                "CPU s", "of device", "CPU of device", "turns",
            ]  # fmt: skip
            rows = [(which, *list(row.values())[:5]) for which, row in figures.items()]
            print(table(header, rows), end="\n\n", flush=True)
            if set(options.contenders) == set(STRATEGIES):
                keep(steps=steps)
    if "checkpoints" in options.only:
        checkpoints = measure_checkpoints()
        for which, row in checkpoints.items():
            print(f"{which}:", *(f"{k} {v}," for k, v in row.items()))
        keep(checkpoints=checkpoints)


if __name__ == "__main__":
    main()
