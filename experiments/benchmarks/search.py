"""A search over alpha and resolution: ours and plain KerasTuner's, side by side.

    python -m experiments.benchmarks.search [--epochs N]

The same grid of MobileNetV2 on scikit-learn's digits, the same number of epochs,
batch size, images, and the same budget of parameters, which a third of the grid
exceeds. Contenders, each in a process of its own, take turns trial by trial:

- ours: the oracle, runner and trials of `km.search`, each trial a run in a process
  and a work directory of its own, with the `quick` recipe (moving averages,
  checkpoints, TensorBoard's log and the saved model included);
- plain: `keras_tuner.GridSearch` with `max_model_size`, keras.applications,
  `compile` with Keras' RMSprop, `fit` on the images resized beforehand.

Start: seconds from the first import to the first trial. Memory: proportional share
(PSS) of the contender and of all its processes, sampled, after the second trial and
at most. Wasted: trials that ended without a result because of the budget. Written to
experiments/results/benchmark_search.json.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from experiments.benchmarks.contenders import ROOT, Contender, serve

RESULT = ROOT / "experiments" / "results" / "benchmark_search.json"
ALPHAS = (0.35, 0.5, 1.0)
RESOLUTIONS = (32, 48, 64)
MAX_PARAMS = 1_000_000  # alpha 1 has 2.2 million
BATCH = 32
SAMPLE = 0.25  # seconds between two looks at the memory


class Memory:
    """Samples what this process and its descendants take, in MB."""

    def __init__(self) -> None:
        self.now = self.peak = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.now = sum(map(_share, _family(os.getpid()))) / 1024
            self.peak = max(self.peak, self.now)
            time.sleep(SAMPLE)


def _family(ancestor: int) -> list[int]:
    parents = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parts[2])] = int(
                stat.read_text().rsplit(") ")[1].split()[1]
            )
        except OSError:
            continue
    family = [ancestor]
    for member in family:
        family += [pid for pid, parent in parents.items() if parent == member]
    return family


def _share(pid: int) -> int:
    try:
        rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(x.split()[1]) for x in rollup.splitlines() if x[:4] == "Pss:"), 0)


def _ours(epochs: int, directory: str) -> Any:
    import dataclasses

    from keras_mobilenets.tuning.isolation import Server

    server = Server()
    from keras_mobilenets.tuning.directory import INDEX
    from keras_mobilenets.tuning.options import read_options
    from keras_mobilenets.tuning.runner import Plan, Runner
    from keras_mobilenets.tuning.searching import make_oracle, prepare_data

    asked = read_options(
        {
            "data": "digits", "alphas": ALPHAS, "resolutions": RESOLUTIONS,
            "max_params": MAX_PARAMS, "epochs": epochs, "batch_size": BATCH,
        }
    )  # fmt: skip
    path = pathlib.Path(directory)
    classes = prepare_data(asked, server, path / INDEX, path / INDEX).classes
    space = dataclasses.replace(asked.space, classes=classes, **asked.budget)
    oracle = make_oracle("grid", space=space, seed=0)
    oracle.folder = path
    runner = Runner(Plan(path, space, asked.arguments, asked.options), oracle, server)
    return oracle, runner.run


def _plain(epochs: int, directory: str) -> Any:
    import keras
    import keras_tuner
    import numpy as np
    import tensorflow as tf
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = np.repeat(digits.images[order][..., None] / 8 - 1, 3, axis=-1)
    labels = digits.target[order]
    parts = {"train": slice(0, 1437), "validation": slice(1437, 1617)}

    class HyperModel(keras_tuner.HyperModel):
        def build(self, hp):
            size = hp.Choice("resolution", RESOLUTIONS)
            model = keras.applications.MobileNetV2(
                input_shape=(size, size, 3), alpha=hp.Choice("alpha", ALPHAS),
                weights=None, classes=10,
            )  # fmt: skip
            model.compile(
                keras.optimizers.RMSprop(0.045, rho=0.9, momentum=0.9, epsilon=1.0),
                "sparse_categorical_crossentropy",
                metrics=["accuracy"],
            )
            return model

        def fit(self, hp, model, **kwargs):
            size = hp.get("resolution")
            resized = tf.image.resize(images, (size, size)).numpy()
            x, y = ((a[parts["train"]]) for a in (resized, labels))
            validation = tuple(a[parts["validation"]] for a in (resized, labels))
            return model.fit(
                x, y, validation_data=validation, batch_size=BATCH, **kwargs
            )

    # Alpha first, as in ours.
    hp = keras_tuner.HyperParameters()
    hp.Choice("alpha", ALPHAS)
    hp.Choice("resolution", RESOLUTIONS)
    tuner = keras_tuner.GridSearch(
        HyperModel(), objective="val_accuracy", hyperparameters=hp,
        max_model_size=MAX_PARAMS, directory=directory, project_name="plain",
    )  # fmt: skip
    return tuner.oracle, lambda: tuner.search(epochs=epochs, verbose=0)


def _commands(which: str, epochs: int) -> dict[str, Callable[[], Any]]:
    """A search that stops after every trial, until it is its turn again."""
    memory = Memory()
    turn, done = threading.Semaphore(0), threading.Semaphore(0)
    state: dict[str, Any] = {"error": None, "over": False}

    def start() -> float:
        began = time.perf_counter()
        directory = tempfile.mkdtemp()
        make = _ours if which == "ours" else _plain
        oracle, search = make(epochs, directory)
        state["oracle"] = oracle
        create = oracle.create_trial

        def create_trial(tuner_id: str) -> Any:
            done.release()
            turn.acquire()
            return create(tuner_id)

        oracle.create_trial = create_trial

        def run() -> None:
            try:
                search()
            except Exception as error:
                state["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
            state["over"] = True
            done.release()

        threading.Thread(target=run, daemon=True).start()
        done.acquire()
        return time.perf_counter() - began

    def trial() -> dict[str, Any] | None:
        began = time.perf_counter()
        turn.release()
        done.acquire()
        trials = state["oracle"].trials
        last = trials[max(trials)]
        if state["over"] and state["error"] is None:
            return None
        values = last.hyperparameters.values
        return {
            "alpha": values["alpha"],
            "resolution": values["resolution"],
            "seconds": time.perf_counter() - began,
            "status": last.status,
            "accuracy": last.score and float(last.score),
            "memory_mb": memory.now,
            "error": state["error"],
        }

    return {"start": start, "trial": trial, "memory": lambda: memory.peak}


def measure(epochs: int) -> dict[str, Any]:
    live = {
        which: Contender(__spec__.name, [which, str(epochs)])
        for which in ("ours", "plain")
    }
    starts = {which: contender.ask("start") for which, contender in live.items()}
    trials: dict[str, list] = {which: [] for which in live}
    going = dict(live)
    while going:
        for which in list(going):
            outcome = going[which].ask("trial")
            if outcome is not None:
                trials[which].append(outcome)
                print(which, outcome, flush=True)
            if outcome is None or outcome["error"]:
                del going[which]
    figures = {}
    for which, contender in live.items():
        finished = [t for t in trials[which] if t["status"] == "COMPLETED"]
        figures[which] = {
            "start_s": round(starts[which], 1),
            "trials_s": round(sum(t["seconds"] for t in finished), 1),
            "total_s": round(
                starts[which] + sum(t["seconds"] for t in trials[which]), 1
            ),
            "finished": len(finished),
            "wasted": len(trials[which]) - len(finished),
            "ended_by": trials[which][-1]["error"],
            "memory_mb": round(finished[1]["memory_mb"]),
            "peak_memory_mb": round(contender.ask("memory")),
            "trials": trials[which],
        }
        contender.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5, help="of each trial")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        which, epochs = options.serve
        return serve(_commands(which, int(epochs)))

    from keras_mobilenets.storage import write_json
    from keras_mobilenets.text import table

    figures = measure(options.epochs)
    shown = [key for key in figures["ours"] if key != "trials"]
    rows = [(key, *(figures[which][key] for which in figures)) for key in shown]
    print(table([f"{options.epochs} epochs", *figures], rows))
    ratio = figures["ours"]["total_s"] / figures["plain"]["total_s"]
    print(f"wall time, ours / plain: {ratio:.2f}")
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    results[f"{options.epochs} epochs"] = {
        **figures,
        "wall_time_ratio": round(ratio, 3),
    }
    results["note"] = "a shared machine of two cores: read the ratios"
    RESULT.parent.mkdir(exist_ok=True)
    write_json(RESULT, results)


if __name__ == "__main__":
    main()
