"""MobileNetV2 figure 5: accuracy over mult-adds, beside V1.

Sandler et al. 2018 (arXiv:1801.04381), figure 5: multipliers 0.35, 0.5, 0.75 and 1
at 96 to 224 pixels and 1.4 at 224, beside MobileNetV1, ShuffleNet and NasNet. Here
with the accuracies of the checkpoints that the authors published (slim's READMEs,
which have 1.3 at 224 as well), and Table 4's of the others; the mult-adds are
counted, 1,001 classes as in the checkpoints. No network was trained here.

What the figure is to show, that V2 is above V1 at the same cost, is put as a number:
how far a V2 lies above the front of V1's checkpoints at its mult-adds, along the
line between two of them over the logarithm.

No erratum: slim's README truncates its millions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.report import compare, format_table, keep, keep_figure
from keras_mobilenets.architecture.published import Published, published
from keras_mobilenets.plots import plot_search

# Mult-adds in millions as slim's mobilenet/README.md prints them, in its order.
PRINTED = (
    *("582", "509"),  # alpha 1.4 and 1.3 at 224 pixels
    *("300", "221", "154", "99", "56"),  # 1: 224, 192, 160, 128, 96
    *("209", "153", "107", "69", "39"),  # 0.75
    *("97", "71", "50", "32", "18"),  # 0.5
    *("59", "43", "30", "20", "11"),  # 0.35
)
# V2 Table 4: network, top-1, mult-adds in millions.
OTHERS = (
    ("ShuffleNet (1.5)", "71.5", "292"),
    ("ShuffleNet (x2)", "73.7", "524"),
    ("NasNet-A", "74.0", "564"),
)
OUTSIDE = "V1 has no checkpoint as small or as large"


def networks(name: str) -> list[Published]:
    return [point for point in published() if point.name == name]


def label(point: Published) -> str:
    return f"{point.alpha:g} MobileNetV2-{point.resolution}"


def front(points: list[Published]) -> list[Published]:
    """Those that none of the same cost or less betters, cheapest first."""
    best: list[Published] = []
    for point in sorted(points, key=lambda p: (p.macs, -p.top1)):
        if not best or point.top1 > best[-1].top1:
            best.append(point)
    return best


def above(point: Published, others: list[Published]) -> float | None:
    """Points of top-1 above the front of others; None beside its ends."""
    line = front(others)
    if not line[0].macs <= point.macs <= line[-1].macs:
        return None
    logs = np.log([each.macs for each in line])
    there = np.interp(np.log(point.macs), logs, [each.top1 for each in line])
    return round(point.top1 - float(there), 4)


def results() -> dict[str, Any]:
    """Everything that is printed, ready for JSON."""
    points, others = networks("mobilenet_v2"), networks("mobilenet_v1")
    rows, gains = [], {}
    for point, macs in zip(points, PRINTED, strict=True):
        gain = above(point, others)
        if gain is not None:
            gains[label(point)] = gain
        notes = [OUTSIDE if gain is None else f"{gain:+.1f} beside V1 at that cost"]
        if point.paper_top1:
            notes.append(f"{point.paper_top1} in the paper's Table 4")
        rows += [
            compare(label(point), "mult-adds (M)", macs, point.macs / 1e6),
            compare(label(point), "top-1 (%)", str(point.top1), note="; ".join(notes)),
        ]
    for name, top1, macs in OTHERS:
        rows += [
            compare(name, "mult-adds (M)", macs),
            compare(name, "top-1 (%)", top1),
        ]
    return {
        "title": __doc__.splitlines()[0],
        "rows": rows,
        "above_v1_at_the_same_cost": gains,
    }


def text(found: dict[str, Any]) -> str:
    """The comparison in words."""
    gains = found["above_v1_at_the_same_cost"]
    least, most = min(gains, key=gains.get), max(gains, key=gains.get)
    above_it = sum(gain > 0 for gain in gains.values())
    return (
        f"{above_it} of the {len(gains)} V2 within V1's range of mult-adds are above "
        f"V1's front: from {gains[least]:+.1f} ({least}) to {gains[most]:+.1f} points "
        f"({most})"
    )


def plot(found: dict[str, Any]) -> Figure:
    """Both families, and the quoted networks."""
    rows = [point._asdict() | {"accuracy": point.top1 / 100} for point in published()]
    figure = plot_search(rows)
    (axes,) = figure.axes
    places = (-6, 5), (-8, -4), (4, -13)  # so that no name lies on another
    for (name, top1, macs), place in zip(OTHERS, places, strict=True):
        axes.plot(float(macs), float(top1), marker="+", color="#cc3311", markersize=9)
        axes.annotate(
            name, (float(macs), float(top1)), xytext=place,
            textcoords="offset points", ha="right", color="#cc3311", fontsize=8,
        )  # fmt: skip
    axes.set_ylabel("ImageNet top-1 (%)")
    axes.set_title("MobileNetV2 and V1: accuracy over mult-adds, as published")
    return figure


def main() -> None:
    found = results()
    print(found["title"], format_table(found["rows"]), "", text(found), sep="\n")
    keep(__file__, found)
    keep_figure(__file__, plot(found))


if __name__ == "__main__":
    main()
