"""MobileNetV2 Table 2: the operators.

Sandler et al. 2018 (arXiv:1801.04381), Table 2. The plan's blocks are read back
into the paper's columns: input, operator, expansion t, channels c, repeats n,
stride s of the first. Equal t and c in a row make one printed row.

Erratum: the text says 19 residual bottleneck layers; the table's n sum to 17,
and with these 17 the network has the paper's 300 M mult-adds.
"""

from __future__ import annotations

import itertools
from typing import Any

from experiments.report import compare, report
from keras_mobilenets.architecture import Layer, make_plan, plan_cost

# input, operator, t, c, n, s; a dash where the paper has one, k for the classes
PAPER = (
    ("224^2 x 3", "conv2d", "-", "32", "1", "2"),
    ("112^2 x 32", "bottleneck", "1", "16", "1", "1"),
    ("112^2 x 16", "bottleneck", "6", "24", "2", "2"),
    ("56^2 x 24", "bottleneck", "6", "32", "3", "2"),
    ("28^2 x 32", "bottleneck", "6", "64", "4", "2"),
    ("14^2 x 64", "bottleneck", "6", "96", "3", "1"),
    ("14^2 x 96", "bottleneck", "6", "160", "3", "2"),
    ("7^2 x 160", "bottleneck", "6", "320", "1", "1"),
    ("7^2 x 320", "conv2d 1x1", "-", "1280", "1", "1"),
    ("7^2 x 1280", "avgpool 7x7", "-", "-", "1", "-"),
    ("1x1x1280", "conv2d 1x1", "-", "k", "-", "-"),
)

IN_WORDS = "{1} on {0}: t {2}, c {3}, n {4}, s {5}"
MULT_ADDS_M = "300"  # Table 4
BOTTLENECKS_IN_TEXT = "19"
ERRATUM = "the text's 19; Table 2's n sum to 17, which gives the paper's 300 M"


def blocks(plan: tuple[Layer, ...]) -> list[tuple[Layer, ...]]:
    """The layers of each bottleneck, in order."""
    body = [layer for layer in plan if layer.name.startswith("block_")]
    return [
        tuple(layers)
        for _, layers in itertools.groupby(
            body, key=lambda layer: layer.name.split("_")[1]
        )
    ]


def block_row(block: tuple[Layer, ...]) -> tuple[str, int, int, int]:
    """(input, t, c, s) of one bottleneck."""
    first = block[0]
    depthwise, project = (
        next(layer for layer in block if layer.name.endswith(part))
        for part in ("_depthwise", "_project")
    )
    t = depthwise.channels_in // first.channels_in
    size = f"{first.size_in}^2 x {first.channels_in}"
    return size, t, project.channels_out, depthwise.stride


def printed_plan(plan: tuple[Layer, ...]) -> list[tuple[str, ...]]:
    """The plan in the rows of Table 2."""
    by_name = {layer.name: layer for layer in plan}
    stem, top, pool = (by_name[name] for name in ("stem", "top", "pool"))

    def size(layer: Layer) -> str:
        return f"{layer.size_in}^2 x {layer.channels_in}"

    bottlenecks = []
    for (t, c), group in itertools.groupby(
        map(block_row, blocks(plan)), key=lambda row: row[1:3]
    ):
        members = list(group)
        source, _, _, s = members[0]
        row = (source, "bottleneck", str(t), str(c), str(len(members)), str(s))
        bottlenecks.append(row)
    return [
        (size(stem), "conv2d", "-", str(stem.channels_out), "1", str(stem.stride)),
        *bottlenecks,
        (size(top), "conv2d 1x1", "-", str(top.channels_out), "1", str(top.stride)),
        (size(pool), f"avgpool {pool.size_in}x{pool.size_in}", "-", "-", "1", "-"),
        (f"1x1x{by_name['logits'].channels_in}", "conv2d 1x1", "-", "k", "-", "-"),
    ]


def rows() -> list[dict[str, Any]]:
    plan = make_plan("mobilenet_v2")
    table = [
        compare(f"row {number}", "operator", IN_WORDS.format(*p), IN_WORDS.format(*o))
        for number, (p, o) in enumerate(
            zip(PAPER, printed_plan(plan), strict=True), start=1
        )
    ]
    count = len(blocks(plan))
    total = sum(int(row[4]) for row in PAPER if row[1] == "bottleneck")
    label = "bottlenecks"
    return [
        *table,
        compare("all", "mult-adds (M)", MULT_ADDS_M, plan_cost(plan).macs / 1e6),
        compare(label, "sum of n", str(total), count),
        compare(label, "in the text", BOTTLENECKS_IN_TEXT, count, erratum=ERRATUM),
    ]


if __name__ == "__main__":
    report(__file__, __doc__, rows())
