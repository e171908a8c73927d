"""The architecture tables of both papers, row by row as printed.

- MobileNetV1: Howard et al. 2017, arXiv:1704.04861, Table 1. The paper prints
  stride 2 for the last depthwise layer; only stride 1 gives its 569 M mult-adds
  and it is what `research/slim/nets/mobilenet_v1.py` does.
- MobileNetV2: Sandler et al. 2018, arXiv:1801.04381, Table 2 (17 bottlenecks;
  the text says 19).

A published ablation is a changed row or a changed field of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Conv(NamedTuple):
    """An ordinary convolution."""

    name: str
    kernel: int
    stride: int
    channels: int
    shrinks: bool = True  # False: alpha widens the layer but never narrows it


class Separable(NamedTuple):
    """`repeats` depthwise separable convolutions (V1 section 3.1)."""

    channels: int
    repeats: int
    stride: int
    separable: bool = True  # False: one full 3x3 convolution (V1 Table 4)


class Bottleneck(NamedTuple):
    """`repeats` inverted residual blocks (V2 Table 1); `stride` is the first's."""

    expansion: float  # t
    channels: int  # c
    repeats: int  # n
    stride: int  # s
    linear: bool = True  # False: ReLU6 after the projection (V2 figure 6a)
    shortcut: str = "bottleneck"  # or "expansion", "none" (V2 figure 6b)


Row = Conv | Separable | Bottleneck

# V1 Table 1: each "Conv dw" and the "Conv 1x1" below it make one row.
MOBILENET_V1: tuple[Row, ...] = (
    Conv("stem", kernel=3, stride=2, channels=32),
    #         channels repeats stride
    Separable(64, 1, 1),
    Separable(128, 1, 2),
    Separable(128, 1, 1),
    Separable(256, 1, 2),
    Separable(256, 1, 1),
    Separable(512, 1, 2),
    Separable(512, 5, 1),
    Separable(1024, 1, 2),
    Separable(1024, 1, 1),
)

# V2 Table 2. Section 4.1: alpha below 1 leaves the last convolution at 1280.
MOBILENET_V2: tuple[Row, ...] = (
    Conv("stem", kernel=3, stride=2, channels=32),
    #          t  c    n  s
    Bottleneck(1, 16, 1, 1),
    Bottleneck(6, 24, 2, 2),
    Bottleneck(6, 32, 3, 2),
    Bottleneck(6, 64, 4, 2),
    Bottleneck(6, 96, 3, 1),
    Bottleneck(6, 160, 3, 2),
    Bottleneck(6, 320, 1, 1),
    Conv("top", kernel=1, stride=1, channels=1280, shrinks=False),
)


def truncate(channels: float) -> int:
    """V1's channel rounding: truncation, at least 8 (slim mobilenet_v1.py).

    >>> truncate(32 * 0.35)
    11
    """
    return max(int(channels), 8)


def make_divisible(channels: float) -> int:
    """V2's channel rounding: the nearest multiple of 8, never 10 % below.

    Source: `_make_divisible` of slim's mobilenet.py (divisor 8, minimum 8).

    >>> make_divisible(24 * 0.75), make_divisible(32 * 0.35)
    (24, 16)
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class Network(NamedTuple):
    """A paper's table with what is constant for every alpha and resolution."""

    rows: tuple[Row, ...]
    round_channels: Callable[[float], int]
    dropout: float  # slim's rate before the classifier
    batch_norm_momentum: float  # slim's decay of the moving statistics


NETWORKS: dict[str, Network] = {
    "mobilenet_v1": Network(MOBILENET_V1, truncate, 0.001, 0.9997),
    "mobilenet_v2": Network(MOBILENET_V2, make_divisible, 0.2, 0.997),
}


def vary(
    rows: tuple[Row, ...],
    *,
    shallow: bool = False,
    separable: bool = True,
    expansion: float = 6,
    linear_bottleneck: bool = True,
    shortcut: str = "bottleneck",
) -> tuple[Row, ...]:
    """The table with a paper's own variations written into its rows.

    `shallow` drops V1's five 14x14x512 blocks (V1 Table 5); the others set the
    field of that name in every row that has it. V2's first block keeps t = 1.
    """

    def changed(row: Row) -> Row:
        if isinstance(row, Separable):
            return row._replace(separable=separable)
        if isinstance(row, Bottleneck):
            t = row.expansion if row.expansion == 1 else expansion
            return row._replace(
                expansion=t, linear=linear_bottleneck, shortcut=shortcut
            )
        return row

    dropped = Separable(512, 5, 1) if shallow else None
    return tuple(changed(row) for row in rows if row != dropped)
