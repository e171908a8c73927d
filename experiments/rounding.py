"""How far rounding carries a training run: what equality can be asked of two of them.

Twenty steps on the digits, in each case three times: on one device, on two replicas
with half of every batch each (synchronised batch norm), and on one device again, from
weights that differ by a unit in their last place. The last is a yardstick that owes
nothing to replicas: two runs that differ by less are as equal as the arithmetic lets
them be.

    python -m experiments.rounding
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

import keras_mobilenets as km
from keras_mobilenets.text import table
from keras_mobilenets.training.distribution import distribute
from keras_mobilenets.training.strategies import make_strategy

RESULT = Path(__file__).parent / "results" / "rounding.json"
NETWORKS = {
    "mobilenet_v1": {"alpha": 0.25, "recipe": "slim_v1"},
    "mobilenet_v2": {"alpha": 0.35, "recipe": "slim_v2"},
}
DTYPES = ("float32", "float64")
RATES = (1e-5, 0.045)
RESOLUTION, BATCH, STEPS = 96, 32, 20
SHOWN = (1, 5, 20)  # steps whose losses the table has


class Trajectory(NamedTuple):
    """The loss of every step, and the weights after the last."""

    losses: np.ndarray
    weights: list[np.ndarray]


def run(
    name: str,
    dtype: str,
    rate: float,
    strategy: Any = None,
    initial: list[np.ndarray] | None = None,
) -> tuple[list[np.ndarray], Trajectory]:
    """The initial weights, and where `STEPS` steps lead from them."""
    keras.config.set_dtype_policy(dtype)
    keras.utils.set_random_seed(0)
    network = NETWORKS[name]
    replicas = strategy.num_replicas_in_sync if strategy else 1
    recipe = km.recipes[network["recipe"]].replace(
        learning_rate=rate,
        scale_learning_rate=False,
        synchronize_batch_norm=True,
        dropout=0.0,  # its draws are each replica's own
        batch_size=BATCH // replicas,
        background_class=False,
        epochs=1000,  # so that batch norm's momentum is no concern
    )
    splits = km.load_data(
        "digits", resolution=RESOLUTION, recipe=recipe, batch_size=BATCH
    )
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = km.build(
            name,
            alpha=network["alpha"],
            resolution=RESOLUTION,
            classes=len(splits.classes),
            dropout=0.0,
        )
        if initial is not None:
            model.set_weights(initial)
        km.compile(model, recipe, steps_per_epoch=splits.steps_per_epoch)
    initial = model.get_weights()
    data = distribute(strategy, splits, "endless") if strategy else splits.endless()
    history = model.fit(data, epochs=STEPS, steps_per_epoch=1, verbose=0).history
    return initial, Trajectory(np.array(history["loss"]), model.get_weights())


def moved(weights: list[np.ndarray]) -> list[np.ndarray]:
    """The weights, each a unit in its last place up or down."""
    random = np.random.default_rng(1)
    return [
        (w * (1 + np.finfo(w.dtype).eps * random.choice([-1, 1], w.shape))).astype(
            w.dtype
        )
        for w in weights
    ]


def compare(one: Trajectory, other: Trajectory) -> dict[str, Any]:
    """Relative differences of losses, by step; the largest difference of a weight."""
    return {
        "losses": np.abs(one.losses / other.losses - 1).tolist(),
        "weights": max(
            float(np.abs(a - b).max())
            for a, b in zip(one.weights, other.weights, strict=True)
        ),
    }


def measure() -> list[dict[str, Any]]:
    """Every case, two comparisons each."""
    two = make_strategy("mirrored", cpu_replicas=2)
    rows = []
    for name in NETWORKS:
        for dtype in DTYPES:
            for rate in RATES:
                initial, one = run(name, dtype, rate)
                others = {
                    "two replicas": run(name, dtype, rate, two, initial)[1],
                    "a unit in the last place": run(
                        name, dtype, rate, initial=moved(initial)
                    )[1],
                }
                for label, other in others.items():
                    case = {"name": name, "dtype": dtype, "learning_rate": rate}
                    rows.append({**case, "against": label, **compare(one, other)})
                    print(".", end="", flush=True)
    print()
    keras.config.set_dtype_policy("float32")
    return rows


def main() -> None:
    """Measure, print, and write results/rounding.json."""
    rows = measure()
    headings = ["network", "dtype", "rate", "one device against"]
    headings += [f"loss {step}" for step in SHOWN] + ["weights"]
    body = [
        [
            row["name"],
            row["dtype"],
            f"{row['learning_rate']:g}",
            row["against"],
            *(f"{row['losses'][step - 1]:.0e}" for step in SHOWN),
            f"{row['weights']:.0e}",
        ]
        for row in rows
    ]
    print(table(headings, body))
    settings = {"resolution": RESOLUTION, "batch": BATCH, "steps": STEPS}
    text = json.dumps({"settings": settings, "rows": rows}, indent=1)
    RESULT.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
