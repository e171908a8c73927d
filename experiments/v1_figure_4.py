"""MobileNetV1 figure 4: accuracy over the logarithm of the mult-adds.

Howard et al. 2017 (arXiv:1704.04861), figure 4: the 16 networks of alpha 1, 0.75,
0.5 and 0.25 at 224, 192, 160 and 128 pixels. "Results are log linear with a jump
when models get very small at alpha = 0.25." Here with the accuracies of the
checkpoints that the authors published (slim's mobilenet_v1.md), and by the side
those the paper prints; the mult-adds are counted, 1,001 classes as in the
checkpoints. No network was trained here.

The line is fitted to the 12 networks of alpha 0.5 and more. How far those of alpha
0.25 lie below it is the jump.

Errata of slim's table: at alpha 0.75 its mult-adds leave out the first convolution,
and 0.25 at 192 pixels is printed as 34 M, for 30 M.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.report import compare, format_table, keep, keep_figure
from keras_mobilenets.architecture.published import Published, published
from keras_mobilenets.plots import plot_search

# Mult-adds in millions as slim's mobilenet_v1.md prints them, in its order.
PRINTED = (
    *("569", "418", "291", "186"),  # alpha 1: 224, 192, 160, 128 pixels
    *("317", "233", "162", "104"),  # 0.75
    *("150", "110", "77", "49"),  # 0.5
    *("41", "34", "21", "14"),  # 0.25
)
SMALLEST = 0.25  # the alpha that the fit leaves out

WITHOUT_STEM = "leaves out the first convolution, as all of alpha 0.75"
TYPING = "34 M are printed for 30.2 M"


def networks() -> list[Published]:
    return [point for point in published() if point.name == "mobilenet_v1"]


def label(point: Published) -> str:
    return f"{point.alpha:g} MobileNet-{point.resolution}"


def fit(points: list[Published]) -> dict[str, float]:
    """Top-1 = offset + slope log2(M mult-adds): points of accuracy a doubling."""
    logs = np.log2([point.macs / 1e6 for point in points])
    top1 = np.array([point.top1 for point in points])
    slope, offset = np.polyfit(logs, top1, 1)
    left = top1 - (offset + slope * logs)
    explained = 1 - (left**2).sum() / ((top1 - top1.mean()) ** 2).sum()
    return {
        "offset": round(float(offset), 4),
        "slope": round(float(slope), 4),
        "r_squared": round(float(explained), 4),
        "largest_deviation": round(float(np.abs(left).max()), 4),
    }


def predicted(line: dict[str, float], macs: float) -> float:
    return line["offset"] + line["slope"] * float(np.log2(macs / 1e6))


def results() -> dict[str, Any]:
    """Everything that is printed, ready for JSON."""
    points = networks()
    large = [point for point in points if point.alpha > SMALLEST]
    line = fit(large)
    rows = []
    for point, macs in zip(points, PRINTED, strict=True):
        erratum = WITHOUT_STEM if point.alpha == 0.75 else ""
        if (point.alpha, point.resolution) == (0.25, 192):
            erratum = TYPING
        paper = f"{point.paper_top1} in the paper" if point.paper_top1 else ""
        off = point.top1 - predicted(line, point.macs)
        note = "; ".join(filter(None, [f"{off:+.1f} from the line", paper]))
        rows += [
            compare(
                label(point), "mult-adds (M)", macs, point.macs / 1e6, erratum=erratum
            ),
            compare(label(point), "top-1 (%)", str(point.top1), note=note),
        ]
    below = [
        predicted(line, point.macs) - point.top1
        for point in points
        if point.alpha == SMALLEST
    ]
    return {
        "title": __doc__.splitlines()[0],
        "rows": rows,
        "fit_of_alpha_0.5_to_1": line,
        "fit_of_all": fit(points),
        "alpha_0.25_below_the_line": [round(each, 4) for each in below],
    }


def text(found: dict[str, Any]) -> str:
    """The fit in words."""
    line, whole = found["fit_of_alpha_0.5_to_1"], found["fit_of_all"]
    below = found["alpha_0.25_below_the_line"]
    return (
        f"{line['slope']:.2f} points a doubling of the mult-adds at alpha 0.5 to 1, "
        f"R^2 {line['r_squared']:.3f}, at most {line['largest_deviation']:.1f} points "
        f"off; alpha 0.25 lies {min(below):.1f} to {max(below):.1f} points below that "
        f"line; one line through all has R^2 {whole['r_squared']:.3f}"
    )


def plot(found: dict[str, Any]) -> Figure:
    """The networks, and the line that leaves out the smallest."""
    points = networks()
    rows = [point._asdict() | {"accuracy": point.top1 / 100} for point in points]
    figure = plot_search(rows)
    (axes,) = figure.axes
    line = found["fit_of_alpha_0.5_to_1"]
    ends = [min(p.macs for p in points), max(p.macs for p in points)]
    axes.plot(
        [macs / 1e6 for macs in ends],
        [predicted(line, macs) for macs in ends],
        color="0.4", linewidth=1, linestyle="--", zorder=0,
    )  # fmt: skip
    axes.annotate(
        f"{line['slope']:.1f} points a doubling\n(fitted to alpha 0.5 to 1)",
        (60, predicted(line, 60e6)),
        xytext=(12, -36), textcoords="offset points", color="0.3", fontsize=9,
    )  # fmt: skip
    axes.set_ylabel("ImageNet top-1 (%)")
    axes.set_title("MobileNetV1: accuracy over mult-adds, as published")
    return figure


def main() -> None:
    found = results()
    print(found["title"], format_table(found["rows"]), "", text(found), sep="\n")
    keep(__file__, found)
    keep_figure(__file__, plot(found))


if __name__ == "__main__":
    main()
