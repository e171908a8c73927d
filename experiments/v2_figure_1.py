"""MobileNetV2 figure 1: what ReLU leaves of a spiral in n dimensions.

Sandler et al. 2018 (arXiv:1801.04381), figure 1: a spiral x in the plane goes through
y = ReLU(T x), with T of n x 2 normal numbers, and comes back as T^+ y, by the
pseudo-inverse. The paper shows the picture and prints no number. Here are the errors
|x' - x| / |x| over 1,000 draws of T, of three ways back:

- *plain inverse*, the paper's. It does not approach 0: of many units half are off, so
  T^+ ReLU(T x) approaches x / 2. The shape comes back, at half its size.
- *scaled inverse*: twice that, which is right where n is large.
- *linear decoder*: the best matrix there is for this spiral and this T. This is what
  the text claims: what is lost in one channel "might still be preserved in the other
  channels".

ReLU(T x) is one to one around x where two units or more are on. Each is on for half of
all directions, so that a direction is lost with probability (n + 1) / 2^n.

The other half is a reader's experiment: an autoencoder of 2, n and 2 units, trained,
where ReLU is said to have a hard time and linear units to be done with two. A trained
encoder is no random draw; and with a bias it can move the spiral to where all units are
on, and lose nothing, if its start does not leave a unit dead for good.

`python -m experiments.v2_figure_1` takes two minutes, of NumPy alone.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from experiments.report import keep, keep_figure
from experiments.spiral import (
    POINTS,
    RATE,
    STEPS,
    TRAINED_SEEDS,
    TURNS,
    decode,
    draw,
    injective,
    relative_error,
    spiral,
    train,
)
from keras_mobilenets.text import table

DIMENSIONS = (2, 3, 5, 15, 30)  # as in the figure
SEEDS = 1000

AUTOENCODERS = {
    "linear units": (False, False),
    "ReLU": (True, False),
    "ReLU with bias": (True, True),
}
SOLVED, HARD = 0.02, 0.1  # errors at most, and at least, for a sentence to hold
GREY, COLORS, PIECES = "0.85", colormaps["plasma"], 12


def sample(n: int, seeds: range) -> dict[str, Any]:
    """Errors over many draws of T: medians, means, and which draw is the median one."""
    x = spiral()
    errors: dict[str, list[float]] = {}
    share = 0.0
    for seed in seeds:
        t = draw(n, seed)
        share += injective(t) / len(seeds)
        for name, decoded in decode(t, x).items():
            errors.setdefault(name, []).append(relative_error(decoded, x))
    return {
        "n": n,
        "median_error": {name: float(np.median(each)) for name, each in errors.items()},
        "mean_error": {name: float(np.mean(each)) for name, each in errors.items()},
        "injective": share,
        "injective_in_theory": 1 - (n + 1) / 2**n,
        "median_seed": {
            name: seeds[int(np.argsort(each)[len(seeds) // 2])]
            for name, each in errors.items()
        },
    }


def measure(seeds: range) -> tuple[dict[str, Any], dict[str, dict[int, np.ndarray]]]:
    """All numbers, ready for JSON; and the spirals of the picture by row and n."""
    with threadpool_limits(1):  # threads are slower on matrices as small as these
        samples = [sample(n, seeds) for n in DIMENSIONS]
        trained = {
            (name, n): train(n, *how)
            for name, how in AUTOENCODERS.items()
            for n in DIMENSIONS
        }
    spirals: dict[str, dict[int, np.ndarray]] = {}
    for row in samples:
        for name, seed in row["median_seed"].items():
            decoded = decode(draw(row["n"], seed), spiral())[name]
            spirals.setdefault(name, {})[row["n"]] = decoded
    for (name, n), (decoded, errors) in trained.items():
        spirals.setdefault(f"trained, {name}", {})[n] = decoded[np.argmin(errors)]
    results = {
        "title": __doc__.splitlines()[0],
        "settings": {
            "points": POINTS, "turns": TURNS, "seeds": [seeds.start, seeds.stop],
            "trained_seeds": TRAINED_SEEDS, "steps": STEPS, "learning_rate": RATE,
        },
        "random": samples,
        "trained": [
            {"units": name, "n": n, "errors": sorted(map(float, errors))}
            for (name, n), (_, errors) in trained.items()
        ],
    }  # fmt: skip
    results["sentences"] = sentences(results)
    rounded = json.loads(
        json.dumps(results), parse_float=lambda x: float(f"{float(x):.6g}")
    )
    return rounded, spirals


def sentences(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What is said of figure 1 and of the autoencoder, and where it holds."""
    random = {row["n"]: row["median_error"] for row in results["random"]}
    trained = {(row["units"], row["n"]): row["errors"] for row in results["trained"]}

    def trained_at(name: str, which: int) -> dict[int, float]:
        return {n: trained[name, n][which] for n in DIMENSIONS}

    best, worst = 0, -1
    claims = (
        (
            "figure 1: with many dimensions the plain inverse gets it back",
            {n: row["plain inverse"] for n, row in random.items()},
            lambda error: error <= SOLVED,
        ),
        (
            "section 3.2: with many dimensions a linear map can get it back",
            {n: row["linear decoder"] for n, row in random.items()},
            lambda error: error <= SOLVED,
        ),
        (
            "trained linear units are done with two",
            trained_at("linear units", worst),
            lambda error: error <= SOLVED,
        ),
        (
            "trained ReLU without bias has a hard time, at its best",
            trained_at("ReLU", best),
            lambda error: error >= HARD,
        ),
        (
            "trained ReLU with bias has a hard time, at its best",
            trained_at("ReLU with bias", best),
            lambda error: error >= HARD,
        ),
        (
            "trained ReLU with bias has a hard time from some starts",
            trained_at("ReLU with bias", worst),
            lambda error: error >= HARD,
        ),
    )
    return [
        {
            "sentence": text,
            "errors": {str(n): error for n, error in errors.items()},
            "holds_at": [n for n, error in errors.items() if holds(error)],
            "fails_at": [n for n, error in errors.items() if not holds(error)],
        }
        for text, errors, holds in claims
    ]


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Titles and tables, as printed and as docs/experiments.md has them."""

    def listed(numbers: list[int]) -> str:
        return ", ".join(map(str, numbers)) or "none"

    decoders = list(results["random"][0]["median_error"])
    return {
        "Median error of the spiral over draws of T": table(
            ["n", *decoders, "one to one", "in theory"],
            [
                (
                    row["n"],
                    *(f"{row['median_error'][name]:.4f}" for name in decoders),
                    f"{100 * row['injective']:.2f} %",
                    f"{100 * row['injective_in_theory']:.2f} %",
                )
                for row in results["random"]
            ],
        ),
        "Error of the trained autoencoder over its starts": table(
            ["units", "n", "best", "worst", f"above {SOLVED:g}"],
            [
                (
                    *(row["units"], row["n"]),
                    *(f"{row['errors'][which]:.4f}" for which in (0, -1)),
                    f"{sum(e > SOLVED for e in row['errors'])} of {len(row['errors'])}",
                )
                for row in results["trained"]
            ],
        ),
        "Where the sentences hold": table(
            ["sentence", "holds at n =", "does not at n ="],
            [
                (row["sentence"], listed(row["holds_at"]), listed(row["fails_at"]))
                for row in results["sentences"]
            ],
        ),
    }


def text(results: dict[str, Any]) -> str:
    """The sentences in a few words."""
    holds = sum(bool(row["holds_at"]) for row in results["sentences"])
    return f"{holds} of {len(results['sentences'])} sentences hold somewhere; below"


def plot(spirals: dict[str, dict[int, np.ndarray]]) -> Figure:
    """A row a way back, a column a dimension; the spiral itself behind, in grey."""
    figure = Figure(figsize=(9.5, 11.5), layout="constrained")
    grid = figure.subplots(len(spirals), len(DIMENSIONS), sharex=True, sharey=True)
    for axes_row, (name, decoded) in zip(grid, spirals.items(), strict=True):
        for axes, n in zip(axes_row, DIMENSIONS, strict=True):
            _draw_spiral(axes, decoded[n])
        axes_row[0].set_ylabel(name.replace(", ", ",\n"), fontsize=11)
    for axes, n in zip(grid[0], DIMENSIONS, strict=True):
        axes.set_title(f"n = {n}\n{axes.get_title()}", fontsize=10, pad=3)
    figure.suptitle(
        "What ReLU in n dimensions leaves of a spiral (grey): median draws, and trained"
    )
    return figure


def _draw_spiral(axes: Axes, decoded: np.ndarray) -> None:
    """In pieces, coloured from the centre outwards; few points, for a small SVG."""
    x, every = spiral(), 8
    axes.plot(*x[:, ::every], color=GREY, linewidth=2.5, zorder=1)
    bounds = np.linspace(0, decoded.shape[1], PIECES + 1).astype(int)
    for index, (start, stop) in enumerate(zip(bounds, bounds[1:], strict=False)):
        color = COLORS(0.9 * index / (PIECES - 1))  # its last yellow is too light
        piece = decoded[:, start : stop + every : every]
        axes.plot(*piece, color=color, linewidth=1.6, zorder=2)
    error = relative_error(decoded, x)
    axes.set_title(
        f"error {error:.3f}" if error >= 0.001 else "error < 0.001", fontsize=9, pad=3
    )
    axes.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", xticks=[], yticks=[])


def main(seeds: int = SEEDS) -> None:
    results, spirals = measure(range(seeds))
    for title, text in tables(results).items():
        print(f"{title}\n\n{text}\n")
    keep(__file__, results)
    keep_figure(__file__, plot(spirals))


if __name__ == "__main__":
    main()
