"""Figures: how a run went, where the mult-adds go, what a search found."""

from __future__ import annotations

import csv
import errno
import itertools
import math
import os
import pathlib
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator

from keras_mobilenets import storage
from keras_mobilenets.architecture import Cost
from keras_mobilenets.architecture.arguments import check_choice, shown
from keras_mobilenets.architecture.shapes import from_plain, sides
from keras_mobilenets.errors import UsageError
from keras_mobilenets.storage import check_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {"conv": "#4477aa", "depthwise": "#ee6677", "dense": "#ccbb44"}
LABELS = {
    "conv": "convolution (1x1, and the 3x3 stem)",
    "depthwise": "3x3 depthwise",
    "dense": "classifier",
}

# Of a cost: its unit on the axis, and how the axis is called.
COST_AXES = {
    "macs": (1e6, "mult-adds (millions)"),
    "params": (1e6, "parameters (millions)"),
    "peak_memory": (2**20, "activation memory (MB)"),
    "latency_ms": (1, "latency (ms)"),
}
ACCURACY_AXES = {
    "accuracy": "validation accuracy (%)",
    "int8_accuracy": "validation accuracy in int8 (%)",
}
MARKERS = "osD^vP*Xhp<>"  # one a resolution
DASHES = ("-", "--", ":")  # one a network


def plot_curves(
    history: str | os.PathLike[str], path: str | os.PathLike[str] | None = None
) -> Figure:
    """Loss and accuracy over the epochs of a history.csv; saved to `path` if given.

    Of images that may have several labels, binary accuracy and F1.

    Raises:
        UsageError: `history` is no such file, or `path` cannot be written.
    """
    path = _writable(path)
    columns = _read_history(history)
    epochs = [epoch + 1 for epoch in columns["epoch"]]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    several = "val_f1_score" in columns
    accuracy = "binary_accuracy" if several else "accuracy"
    for axes, metric in zip(figure.subplots(1, 2), ("loss", accuracy), strict=True):
        drawn = {metric: "training", f"val_{metric}": "validation"}
        if several and metric == accuracy:
            drawn["val_f1_score"] = "validation: F1"
        for column, label in drawn.items():
            if epochs and column in columns:
                axes.plot(
                    epochs, columns[column], marker="o", markersize=3, label=label
                )
        axes.set(xlabel="epoch", ylabel=metric.replace("_", " "))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    return _saved(figure, path)


def plot_cost(
    cost: Cost, path: str | os.PathLike[str] | None = None, title: str = ""
) -> Figure:
    """Mult-adds (left) and parameters (right) of every layer, in forward order.

    Raises:
        UsageError: `cost` is not of `keras_mobilenets.cost`, or `path` cannot be
            written.
    """
    path = _writable(path)
    if not isinstance(cost, Cost):
        raise UsageError(
            "cost must be what keras_mobilenets.cost returns; got "
            f"{shown(cost)}: give cost('mobilenet_v2')"
        )
    if not isinstance(title, str):
        raise UsageError(f"title must be a text; got {shown(title)}")
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


def plot_search(
    rows: Iterable[Mapping[str, Any]],
    front: Iterable[Mapping[str, Any]] = (),
    path: str | os.PathLike[str] | None = None,
    *,
    cost: str = "macs",
    accuracy: str = "accuracy",
) -> Figure:
    """Accuracy over the logarithm of a cost, as V1's figure 4 and V2's figure 5.

    A line for every alpha, a marker for every resolution, and the Pareto front. Of
    several trials of one network the best is on the line, the others are pale. Rows
    are those of `SearchResult`; without an accuracy or this cost they are left out.
    `accuracy` is the column to draw, one of `ACCURACY_AXES`.

    Raises:
        UsageError: `cost` is not one of `COST_AXES`, rows lack what is drawn, or `path`
            cannot be written.
    """
    path = _writable(path)
    unit, label = COST_AXES[check_choice("cost", cost, COST_AXES)]
    of = ACCURACY_AXES[check_choice("accuracy", accuracy, ACCURACY_AXES)]
    rows = _drawable("rows", rows, cost, accuracy)
    front = _drawable("front", front, cost, accuracy)
    names, alphas = (
        sorted({row[field] for row in rows}) for field in ("name", "alpha")
    )
    sizes = sorted({row["resolution"] for row in rows}, key=_sides)
    shades = colormaps["viridis"].resampled(len(alphas) + 1)  # the last is too light
    colors = {alpha: shades(index) for index, alpha in enumerate(alphas)}
    markers = dict(zip(sizes, itertools.cycle(MARKERS), strict=False))
    dashes = dict(zip(names, itertools.cycle(DASHES), strict=False))

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    best: dict[tuple, Mapping[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row[accuracy]):
        best[row["name"], row["alpha"], row["resolution"]] = row
    for name, alpha in itertools.product(names, alphas):
        line = [
            best[name, alpha, size] for size in sizes if (name, alpha, size) in best
        ]
        axes.plot(
            [row[cost] / unit for row in line],
            [100 * row[accuracy] for row in line],
            linestyle=dashes[name],
            color=colors[alpha],
        )
    for row in rows:
        on_line = row is best[row["name"], row["alpha"], row["resolution"]]
        axes.plot(
            row[cost] / unit,
            100 * row[accuracy],
            marker=markers[row["resolution"]],
            color=colors[row["alpha"]],
            alpha=1 if on_line else 0.3,
            zorder=3,
        )
    axes.step(
        [row[cost] / unit for row in front],
        [100 * row[accuracy] for row in front],
        where="post",
        color="#cc3311",
        linewidth=4,
        alpha=0.35,
        zorder=1,
    )
    axes.set(xscale="log", xlabel=label, ylabel=of)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.grid(alpha=0.3)

    def entry(text: str, **style: Any) -> Line2D:
        return Line2D([], [], label=text, **{"color": "black", **style})

    networks = [entry(name, linestyle=dashes[name]) for name in names]
    axes.legend(
        handles=[
            *(networks if len(networks) > 1 else ()),
            *(entry(f"alpha {alpha:g}", color=colors[alpha]) for alpha in alphas),
            *(
                entry(f"{size} px", linestyle="", marker=markers[size])
                for size in sizes
            ),
            *(
                [entry("Pareto front", color="#cc3311", linewidth=4, alpha=0.35)]
                * bool(front)
            ),
        ],
        fontsize=8,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    return _saved(figure, path)


def _bars(axes: Axes, layers: list, values: list[float], label: str) -> None:
    colors = [COLORS[row.layer.kind] for row in layers]
    axes.barh(range(len(layers)), values, color=colors)
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def _read_history(path: str | os.PathLike[str]) -> dict[str, list[float]]:
    """The columns of a history.csv."""
    path = check_path("history", path)
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe would wait
            raise ValueError("not a file")
        with open(path, newline="") as file:
            names, *rows = csv.reader(file)
        columns: dict[str, list[float]] = {name: [] for name in names}
        for row in rows:
            for name, value in zip(names, row, strict=True):
                # A column that only some epochs have is empty in the others.
                columns[name].append(float(value or "nan"))
        return {**columns, "epoch": [int(epoch) for epoch in columns["epoch"]]}
    except (OSError, ValueError, OverflowError, KeyError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise UsageError(
            "history must be a CSV file of numbers with a column 'epoch', such as "
            f"history.csv of train; got {path!r} ({reason})"
        ) from error


def _sides(resolution: int | str) -> tuple[int, int]:
    """Height and width of a resolution as tables have it: 96, or "96x160"."""
    if not isinstance(resolution, (Real, str)):
        raise TypeError(f"resolution {shown(resolution)}")
    return sides(from_plain(resolution))


def _drawable(
    argument: str, rows: Iterable[Mapping[str, Any]], cost: str, accuracy: str
) -> list[Mapping[str, Any]]:
    """Those of `rows` that have an accuracy and a cost."""
    numbers = ("alpha", accuracy, cost)
    try:
        rows = list(rows)
        for row in rows:
            wrong = [n for n in numbers if not isinstance(row[n], (Real, type(None)))]
            if wrong or not isinstance(row["name"], str):
                raise TypeError(f"{(*wrong, 'name')[0]} of {shown(row)}")
            _sides(row["resolution"])
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise UsageError(
            f"{argument} must be an iterable of dicts with name, resolution and the "
            f"numbers {', '.join(numbers)}, such as `table` of a SearchResult; got "
            f"{shown(rows)} ({type(error).__name__}: {error})"
        ) from error
    return [
        row
        for row in rows
        if None not in (row[accuracy], row[cost])
        and math.isfinite(row[accuracy])
        and 0 < row[cost] < math.inf  # on a logarithmic axis
    ]


def _writable(path: str | os.PathLike[str] | None) -> pathlib.Path | None:
    """`path`, as a file that Matplotlib can write; its folder is made."""
    if path is None:
        return None
    target = pathlib.Path(check_path("path", path))
    suffixes = sorted(Figure().canvas.get_supported_filetypes())
    if target.suffix[1:].lower() not in suffixes:
        raise UsageError(
            f"path must be a file name that ends with one of .{', .'.join(suffixes)}; "
            f"got {shown(path)}"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise UsageError(
            f"path must be a file that can be written; got {shown(path)} "
            f"({error.strerror})"
        ) from error
    return target


def _saved(figure: Figure, path: pathlib.Path | None) -> Figure:
    if path is not None:
        with storage.replacing(path) as beside:
            figure.savefig(beside, dpi=150)
    return figure
