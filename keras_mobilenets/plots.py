"""Figures: how a run went, where the mult-adds go."""

from __future__ import annotations

import csv
import os
import pathlib
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from keras_mobilenets.architecture import Cost

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {"conv": "#4477aa", "depthwise": "#ee6677", "dense": "#ccbb44"}
LABELS = {
    "conv": "convolution (1x1, and the 3x3 stem)",
    "depthwise": "3x3 depthwise",
    "dense": "classifier",
}


def plot_curves(
    history: str | os.PathLike[str], path: str | os.PathLike[str] | None = None
) -> Figure:
    """Loss and accuracy over the epochs of a history.csv; saved to `path` if given."""
    with open(history, newline="") as file:
        rows = list(csv.DictReader(file))
    epochs = [int(row["epoch"]) + 1 for row in rows]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for column, label in ((metric, "training"), (f"val_{metric}", "validation")):
            if rows and column in rows[0]:
                values = [float(row[column]) for row in rows]
                axes.plot(epochs, values, marker="o", markersize=3, label=label)
        axes.set(xlabel="epoch", ylabel=metric)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    return _saved(figure, path)


def plot_cost(
    cost: Cost, path: str | os.PathLike[str] | None = None, title: str = ""
) -> Figure:
    """Mult-adds (left) and parameters (right) of every layer, in forward order."""
    layers = [row for row in cost.layers if row.macs]
    figure = Figure(figsize=(10, 0.16 * len(layers) + 1.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _bars(left, layers, [row.macs / 1e6 for row in layers], "mult-adds (millions)")
    _bars(right, layers, [row.params / 1e3 for row in layers], "parameters (thousands)")
    left.set_yticks(range(len(layers)), [row.name for row in layers], fontsize=6)
    left.margins(y=0.01)
    left.invert_yaxis()
    kinds = dict.fromkeys(row.layer.kind for row in layers)
    handles = [Patch(color=COLORS[kind], label=LABELS[kind]) for kind in kinds]
    right.legend(handles=handles, loc="upper right", fontsize=8)
    figure.suptitle(
        f"{title + ': ' if title else ''}{cost.macs / 1e6:.1f} M mult-adds, "
        f"{cost.params / 1e6:.2f} M parameters"
    )
    return _saved(figure, path)


def _bars(axes: Axes, layers: list, values: list[float], label: str) -> None:
    colors = [COLORS[row.layer.kind] for row in layers]
    axes.barh(range(len(layers)), values, color=colors)
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def _saved(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    if path is not None:
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    return figure
