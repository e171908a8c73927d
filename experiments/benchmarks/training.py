"""Training speed: ours, stock Keras and torchvision, side by side in one run.

    python -m experiments.benchmarks.training [--torch-python PYTHON]

Contenders, each in a process of its own, with the same batches of random images:

- ours: `km.build`, `km.compile(model, "slim_v2" or "slim_v1")`, `model.fit`, once
  with the recipe's moving average and once without, as the others have none;
- stock: keras.applications' network, `compile` with Keras' RMSprop, `fit`;
- torch: torchvision's mobilenet_v2, channels_last, torch's RMSprop (V2 only; with
  --torch-python where torch is installed for another interpreter).

First step: seconds from the call that builds the network to the end of the first
training step, imports excluded, median over fresh processes. Steady step: seconds
of one step, contenders taking turns, median. Peak memory: of the process, the
framework included. Written to experiments/results/benchmark_training.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

from experiments.benchmarks.contenders import (
    ROOT,
    Contender,
    peak_memory,
    serve,
)

RESULT = ROOT / "experiments" / "results" / "benchmark_training.json"
CASES = [  # name, alpha, resolution, batch size
    ("mobilenet_v2", 0.35, 96, 64),
    ("mobilenet_v1", 0.35, 96, 64),
    ("mobilenet_v2", 1.0, 224, 32),
    ("mobilenet_v1", 1.0, 224, 32),
]
STEPS = 5  # of a turn
CONTENDERS = ("ours", "ours_without_average", "stock", "torch")


def _keras_commands(which: str, name: str, alpha: float, size: int, batch: int):
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_mobilenets as km

    km.build, km.compile  # noqa: B018 - imports behind them, before the clock starts
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (batch, size, size, 3)).astype("float32")
    data = tf.data.Dataset.from_tensors((x, rng.integers(0, 1000, batch))).repeat()
    state: dict[str, Any] = {}

    class Clock(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.times = [time.perf_counter()]

        def on_train_batch_end(self, batch, logs=None):
            self.times.append(time.perf_counter())

    def fit(steps: int) -> list[float]:
        clock = Clock()
        state["model"].fit(data.take(steps), verbose=0, callbacks=[clock])
        return [b - a for a, b in zip(clock.times, clock.times[1:], strict=False)]

    def first() -> float:
        start = time.perf_counter()
        if which == "stock":
            network = {
                "mobilenet_v1": keras.applications.MobileNet,
                "mobilenet_v2": keras.applications.MobileNetV2,
            }[name]
            model = network(input_shape=(size, size, 3), alpha=alpha, weights=None)
            schedule = keras.optimizers.schedules.ExponentialDecay(
                0.045, 1000, 0.98, staircase=True
            )
            model.compile(
                keras.optimizers.RMSprop(schedule, rho=0.9, momentum=0.9, epsilon=1.0),
                "sparse_categorical_crossentropy",
                metrics=["accuracy"],
            )
        else:
            average = {} if which == "ours" else {"ema_decay": None}
            model = km.build(name, alpha=alpha, resolution=size)
            recipe = {"mobilenet_v1": "slim_v1", "mobilenet_v2": "slim_v2"}[name]
            km.compile(model, recipe, steps_per_epoch=10000, **average)
        state["model"] = model
        fit(1)
        return time.perf_counter() - start

    # The first step of every fit starts the data anyew and is not counted.
    return {"first": first, "steps": lambda: fit(STEPS + 1)[1:], "memory": peak_memory}


def _torch_commands(which: str, name: str, alpha: float, size: int, batch: int):
    import torch
    import torchvision

    torch.set_num_threads(torch.get_num_threads())
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((batch, 3, size, size), generator=generator) * 2 - 1
    x = x.to(memory_format=torch.channels_last)
    y = torch.randint(0, 1000, (batch,), generator=generator)
    state: dict[str, Any] = {}

    def step() -> float:
        start = time.perf_counter()
        model, optimizer, loss = state["parts"]
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
        return time.perf_counter() - start

    def first() -> float:
        start = time.perf_counter()
        model = torchvision.models.mobilenet_v2(width_mult=alpha, num_classes=1000)
        model = model.to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.RMSprop(
            model.parameters(), 0.045, alpha=0.9, momentum=0.9, eps=1.0,
            weight_decay=4e-5,
        )  # fmt: skip
        loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
        state["parts"] = model, optimizer, loss
        step()
        return time.perf_counter() - start

    def steps() -> list[float]:
        return [step() for _ in range(STEPS)]

    return {"first": first, "steps": steps, "memory": peak_memory}


def measure(case: tuple, contenders: dict[str, str], rounds: int, starts: int) -> dict:
    """Figures of one case for every contender (name -> its interpreter)."""
    arguments = [str(value) for value in case]
    first = {which: [] for which in contenders}
    steady = {which: [] for which in contenders}
    memory = {}
    for start in range(starts):
        live = {}
        for which, python in contenders.items():
            contender = Contender(__spec__.name, [which, *arguments], python)
            first[which].append(contender.ask("first"))
            if start < starts - 1:
                contender.close()
            else:
                live[which] = contender
    for _ in range(rounds):
        for which, contender in live.items():
            steady[which] += contender.ask("steps")
    for which, contender in live.items():
        memory[which] = contender.ask("memory")
        contender.close()
    return {
        which: {
            "first_step_s": round(statistics.median(first[which]), 3),
            "step_s": round(statistics.median(steady[which]), 4),
            "step_s_min": round(min(steady[which]), 4),
            "peak_memory_mb": round(memory[which] / 2**20),
            "steps": len(steady[which]),
        }
        for which in contenders
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", help="interpreter that has torchvision")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each contender")
    parser.add_argument("--starts", type=int, default=3, help="fresh processes")
    parser.add_argument("--cases", type=int, nargs="*", default=range(len(CASES)))
    parser.add_argument("--serve", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        which, name, *numbers = options.serve
        make = _torch_commands if which == "torch" else _keras_commands
        alpha, size, batch = float(numbers[0]), int(numbers[1]), int(numbers[2])
        return serve(make(which, name, alpha, size, batch))

    import sys

    from keras_mobilenets.machine import about_machine
    from keras_mobilenets.text import table

    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for index in options.cases:
        case = CASES[index]
        contenders = dict.fromkeys(CONTENDERS[:3], sys.executable)
        if options.torch_python and case[0] == "mobilenet_v2":
            contenders["torch"] = options.torch_python
        figures = measure(case, contenders, options.rounds, options.starts)
        results[" ".join(map(str, case))] = figures
        rows = [
            (
                which,
                *figures[which].values(),
                *(
                    f"{figures['ours'][key] / figures[which][key]:.2f}"
                    for key in ("first_step_s", "step_s", "peak_memory_mb")
                ),
            )
            for which in figures
        ]
        header = [
            f"{case[0]} {case[1]}, {case[2]} px, batch {case[3]}", "first step s",
            "step s", "best s", "peak MB", "steps", "ours/it first", "step", "memory",
        ]  # fmt: skip
        print(table(header, rows), end="\n\n", flush=True)
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(
            json.dumps({**results, "machine": about_machine()}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
