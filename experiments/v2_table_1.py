"""MobileNetV2 Table 1: the bottleneck residual block.

Sandler et al. 2018 (arXiv:1801.04381), Table 1: from k to k' channels, with stride s
and expansion t. The rows are read back from the plan of an image that is not square:
each size and width is written as the one expression that fits all blocks.

Erratum: with t = 1 there is no first row. The authors' code leaves it out, and only
so the network has the paper's 300 M mult-adds; with it, it would have 313.6 M.
"""

from __future__ import annotations

from typing import Any

from experiments.report import compare, report
from experiments.v2_table_2 import MULT_ADDS_M, blocks
from keras_mobilenets.architecture import Layer, make_plan, plan_cost

# input, operator, output
PAPER = (
    ("h x w x k", "1x1 conv2d, ReLU6", "h x w x (tk)"),
    ("h x w x tk", "3x3 depthwise stride s, ReLU6", "h/s x w/s x (tk)"),
    ("h/s x w/s x tk", "linear 1x1 conv2d", "h/s x w/s x k'"),
)

IN_WORDS = "{1}: {0} -> {2}"
RESOLUTION, T = (256, 192), 6  # both sides can be halved five times
ERRATUM = "with t = 1 there is no expansion: with one the network would cost 313.6 M"


def letters(block: tuple[Layer, ...]) -> dict[str, int]:
    """What each expression of the table is in a block."""
    first, depthwise, project = block[0], block[-2], block[-1]
    if project.kind == "add":
        depthwise, project = block[-3], block[-2]
    height, width = first.size_in
    s, k = depthwise.stride, first.channels_in
    sizes = {"h": height, "w": width, "h/s": height // s, "w/s": width // s}
    return {**sizes, "k": k, "tk": T * k, "k'": project.channels_out, "s": s, "1": 1}


def read_back(values: list[int], meanings: list[dict[str, int]]) -> str:
    """The one expression that has these values in all blocks."""
    (name,) = (
        name
        for name in meanings[0]
        if values == [meaning[name] for meaning in meanings]
    )
    return name


def printed(layers: list[Layer], meanings: list[dict[str, int]]) -> tuple[str, ...]:
    """The same layer of all blocks, in the words of Table 1."""

    def tensor(sizes: list, channels: list[int], bracket: bool) -> str:
        sides = [read_back(list(side), meanings) for side in zip(*sizes, strict=True)]
        width = read_back(channels, meanings)
        return " x ".join([*sides, f"({width})" if bracket and "t" in width else width])

    ((kind, kernel, activation),) = {(m.kind, m.kernel, m.activation) for m in layers}
    stride = read_back([layer.stride for layer in layers], meanings)
    name = {"conv": "conv2d", "depthwise": "depthwise"}[kind]
    operator = f"{kernel}x{kernel} {name}"
    operator += f" stride {stride}" if stride != "1" else ""
    return (
        tensor([m.size_in for m in layers], [m.channels_in for m in layers], False),
        f"{operator}, ReLU6" if activation == "relu6" else f"linear {operator}",
        tensor([m.size_out for m in layers], [m.channels_out for m in layers], True),
    )


def printed_plan(plan: tuple[Layer, ...]) -> list[tuple[str, ...]]:
    """The blocks of the plan that expand, in the rows of Table 1."""
    expanding = [block for block in blocks(plan) if "expand" in block[0].name]
    meanings = [letters(block) for block in expanding]
    return [
        printed([block[row] for block in expanding], meanings)
        for row in range(len(PAPER))
    ]


def rows() -> list[dict[str, Any]]:
    table = [
        compare(f"row {number}", "operator", IN_WORDS.format(*p), IN_WORDS.format(*o))
        for number, (p, o) in enumerate(
            zip(PAPER, printed_plan(make_plan(resolution=RESOLUTION)), strict=True),
            start=1,
        )
    ]
    plan = make_plan("mobilenet_v2")
    first = blocks(plan)[0]
    expansion = first[0].channels_in ** 2 * first[0].pixels_in
    macs = plan_cost(plan).macs
    quantity = "mult-adds (M)"
    return [
        *table,
        compare("t = 1", "layers", str(len(PAPER)), len(first), erratum=ERRATUM),
        compare("all, t = 1 without row 1", quantity, MULT_ADDS_M, macs / 1e6),
        compare(
            "all, t = 1 with row 1", quantity, MULT_ADDS_M, (macs + expansion) / 1e6,
            erratum=ERRATUM,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    report(__file__, __doc__, rows())
