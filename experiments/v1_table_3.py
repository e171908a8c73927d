"""MobileNetV1 Table 3: one layer shrinks, step by step.

Howard et al. 2017 (arXiv:1704.04861), Table 3: a 3x3 layer with 512 channels in
and out on a 14x14 map, made depthwise separable, then narrower (alpha 0.75),
then smaller (rho 0.714: 14 becomes 10). Each step is a plan written by hand and
counted as any plan is; kernels only, as the paper counts. No erratum.
"""

from __future__ import annotations

from typing import Any

from experiments.report import compare, report
from keras_mobilenets.architecture import Layer, plan_cost

KERNEL, CHANNELS, SIZE = 3, 512, 14
ALPHA, RHO = 0.75, 0.714

# modification, mult-adds in millions, parameters in millions
PAPER = (
    ("Convolution", "462", "2.36"),
    ("Depthwise Separable Conv", "52.3", "0.27"),
    ("alpha=0.75", "29.6", "0.15"),
    ("rho=0.714", "15.1", "0.15"),
)


def full(channels: int, size: int) -> tuple[Layer, ...]:
    """One ordinary convolution."""
    return (Layer("conv", "conv", ("image",), size, size, channels, channels, KERNEL),)


def separable(channels: int, size: int) -> tuple[Layer, ...]:
    """A depthwise and a 1x1 convolution."""
    shape = (size, size, channels, channels)
    return (
        Layer("depthwise", "depthwise", ("image",), *shape, KERNEL),
        Layer("project", "conv", ("depthwise",), *shape, 1),
    )


def rows() -> list[dict[str, Any]]:
    narrow, small = int(ALPHA * CHANNELS), round(RHO * SIZE)
    plans = (
        full(CHANNELS, SIZE),
        separable(CHANNELS, SIZE),
        separable(narrow, SIZE),
        separable(narrow, small),
    )
    table = []
    for (label, macs, params), plan in zip(PAPER, plans, strict=True):
        ours = plan_cost(plan)
        table += [
            compare(label, "mult-adds (M)", macs, ours.macs / 1e6),
            compare(label, "params (M)", params, ours.params / 1e6),
        ]
    return table


if __name__ == "__main__":
    report(__file__, __doc__, rows())
