"""Pictures of an evaluation: what is taken for what, how sure of it, and by mistake."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from keras_mobilenets.text import shortened

# Up to so many classes a matrix is drawn; of more, its cells are too small to find a
# name for, and the pairs that are confused most say more.
MATRIX_CLASSES = 60
COUNTED_CLASSES = 30  # up to so many, its cells have numbers
PAIRS = 40  # shown of more classes
NAME = 22  # letters of a class name
COLUMNS = 5  # of the contact sheet
BLUE, RED, GREY = "#4477aa", "#cc3311", "#bbbbbb"

Result = Mapping[str, Any]  # what `evaluate` returns


def draw_confusion(result: Result) -> Figure:
    """The confusion matrix, or the most confused pairs of more classes."""
    few = len(result["per_class"]) <= MATRIX_CLASSES
    return _matrix(result) if few else _pairs(result)


def _title(result: Result) -> str:
    figure = f"accuracy {result.get('accuracy', 0):.2%}"
    if "f1_score" in result:
        figure = f"F1 {result['f1_score']:.2%}"
    return f"{result['split']}: {result['images']:,} images, {figure}"


def draw_labels(result: Result) -> Figure:
    """Average precision, precision and recall of every label, or of the worst of many.

    Where an image may have several labels there is no matrix of confusion: nothing is
    said instead of another.
    """
    figures = {
        name: of for name, of in result["per_class"].items()
        if of["average_precision"] is not None
    }  # fmt: skip
    worst = sorted(figures, key=lambda name: figures[name]["average_precision"])
    names = list(figures) if len(figures) <= MATRIX_CLASSES else worst[:PAIRS]
    figure = Figure(figsize=(8, 0.24 * max(len(names), 4) + 1.6), layout="tight")
    axes = figure.subplots()
    places = range(len(names))
    of_names = [figures[name] for name in names]
    average = [of["average_precision"] for of in of_names]
    axes.barh(places, average, color=BLUE, label="average precision")
    for key, marker, color in (("precision", "|", RED), ("recall", "o", "black")):
        there = [(of[key], n) for n, of in enumerate(of_names) if of[key] is not None]
        axes.plot(
            *zip(*there, strict=True) if there else ([], []),
            linestyle="", marker=marker, markersize=8 if marker == "|" else 4,
            markeredgewidth=2 if marker == "|" else 1, color=color, label=key,
        )  # fmt: skip
    axes.set_yticks(
        places,
        [f"{shortened(n, NAME)} ({figures[n]['support']:,})" for n in names],
        fontsize=8,
        parse_math=False,
    )
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set(xlim=(0, 1.01), xlabel="in brackets: images that have it")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    more = f"\nof {len(figures):,} labels the {len(names)} worst"
    figure.suptitle(
        f"{_title(result)}, mean average precision "
        f"{result['mean_average_precision'] or 0:.2%}"
        + (more if len(figures) > len(names) else ""),
        fontsize=10,
    )
    return figure


def _matrix(result: Result) -> Figure:
    """A row for each true class, in shares of its images."""
    classes = list(result["per_class"])
    counts = np.array(
        [
            [result["confusion"].get(true, {}).get(said, 0) for said in classes]
            for true in classes
        ]
    )
    support = counts.sum(axis=1, keepdims=True)
    shares = np.ma.masked_where(  # a class without images has no shares
        np.broadcast_to(support == 0, counts.shape), counts / np.maximum(support, 1)
    )
    names = [shortened(name, NAME) for name in classes]
    counted = len(classes) <= COUNTED_CLASSES
    side = max(2.2, (0.34 if counted else 0.17) * len(classes))  # inches
    longest = 0.09 * max(map(len, names))
    figure = Figure(figsize=(side + longest + 2, side + longest + 1), layout="tight")
    axes = figure.subplots()
    # A few mistakes among many images are still seen.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    axes.set_facecolor("#eeeeee")
    upright = 90 if longest > 0.3 else 0
    ticks = range(len(classes))
    axes.set_xticks(ticks, names, rotation=upright, fontsize=8, parse_math=False)
    axes.set_yticks(ticks, names, fontsize=8, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(_title(result), fontsize=10)
    if counted:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.4 else "black"
                axes.text(
                    column,
                    row,
                    f"{count:,}",
                    ha="center",
                    va="center",
                    fontsize=8 if count < 1000 or len(classes) < 5 else 6,
                    color=color,
                )
    bar = figure.colorbar(image, fraction=0.04, pad=0.02, ticks=[0, 0.05, 0.2, 0.5, 1])
    bar.set_label("share of the true class", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


def _pairs(result: Result) -> Figure:
    """Bars of the pairs (true, predicted) that are confused most."""
    pairs = sorted(
        (-images, true, said)
        for true, row in result["confusion"].items()
        for said, images in row.items()
        if true != said
    )
    shown = pairs[:PAIRS]
    support = {name: of["support"] for name, of in result["per_class"].items()}
    figure = Figure(figsize=(8, 0.2 * max(len(shown), 4) + 1.2), layout="tight")
    axes = figure.subplots()
    counts = [-images for images, *_ in shown]
    axes.barh(range(len(shown)), counts, color=BLUE)
    axes.set_yticks(
        range(len(shown)),
        [f"{shortened(t, NAME)} → {shortened(s, NAME)}" for _, t, s in shown],
        fontsize=8,
        parse_math=False,
    )
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlim(0, 1.15 * max(counts, default=1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for place, (images, true, _) in enumerate(shown):
        text = f" {-images:,} of {support[true]:,}"
        axes.text(-images, place, text, va="center", fontsize=7)
    axes.set_xlabel("images (of those of the true class)")
    more = f"\nof {len(pairs):,} confused pairs the {len(shown)} most frequent"
    title = _title(result) + (more if len(pairs) > len(shown) else "")
    figure.suptitle(f"{title}\ntrue → predicted", fontsize=10)
    return figure


def draw_reliability(result: Result) -> Figure:
    """Accuracy over confidence, and how many images have which.

    Where bars are below the line, the network is surer than it is right.
    """
    bins = [row for row in result["reliability"] if row["images"]]
    figure = Figure(figsize=(5, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    lows = [row["low"] for row in bins]
    widths = [row["high"] - row["low"] for row in bins]
    bars = {"width": widths, "align": "edge", "edgecolor": "white"}
    upper.bar(lows, [row["accuracy"] for row in bins], color=BLUE, **bars)
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfect")
    means = [row["confidence"] for row in bins]
    upper.plot(
        means, means, "o", color=RED, markersize=4, label="mean confidence of the bin"
    )
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    upper.legend(fontsize=8, loc="upper left")
    upper.set_title(
        f"{_title(result)}\nexpected calibration error "
        f"{result['calibration_error']:.2%}",
        fontsize=10,
    )
    lower.bar(lows, [row["images"] for row in bins], color=GREY, **bars)
    lower.set(xlabel="confidence", ylabel="images")
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return figure


def draw_mistakes(result: Result, images: Sequence[np.ndarray]) -> Figure:
    """The contact sheet of the worst mistakes, as the network saw them.

    `images` are those of result["mistakes"], float32 [h, w, channels] in [-1, 1].
    """
    mistakes = result["mistakes"]
    columns = min(COLUMNS, len(mistakes))
    rows = math.ceil(len(mistakes) / columns)
    figure = Figure(
        figsize=(max(2 * columns, 4), 2.6 * rows + 0.6), layout="constrained"
    )
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in places:
        axes.set_axis_off()
    for axes, image, mistake in zip(places, images, mistakes, strict=False):
        pixels = np.clip((image[..., :3] + 1) / 2, 0, 1)
        axes.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=1)
        true, said = (shortened(mistake[of], NAME) for of in ("true", "predicted"))
        axes.set_title(
            f"true: {true}\nsaid: {said}\n{mistake['confidence']:.1%}",
            fontsize=8,
            parse_math=False,
        )
    figure.suptitle(f"{_title(result)}\nthe surest mistakes", fontsize=10)
    return figure
