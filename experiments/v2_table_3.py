"""MobileNetV2 Table 3: the widest tensors at each resolution.

Sandler et al. 2018 (arXiv:1801.04381), Table 3: the most channels that have to
be kept in memory at each resolution, and their kilobytes (1000 bytes) at 16 bit
per activation. For V1 that is the widest output of any layer. For V2 it is the
widest end of a bottleneck, because section 5 computes its wide inside piece by
piece; for the same reason the convolutions before and after the bottlenecks
count with what they are reduced to. ShuffleNet is quoted.

The paper prints kilobytes loosely (1605.6 as 1600, 802.8 as 800, 2.56 as 2,
31.4 as 32): ours agree within 1 %, or within 1 kB where the number is small.

Errata. The channels of V2 at 56, 28 and 14 pixels (32, 64, 160) are those of
the row of Table 2 whose input has that size; what lives at these sizes has 24,
32 and 96, as Table 2's own input column says, and the kilobytes follow. V1's
199 kB at 7 pixels are twice 7 x 7 x 1024 x 2 bytes = 100 kB.

Two versions of the table are in print. The one without the appendix has O(1)
at 112 pixels, so its maxima are those of 56 pixels: 800 K for V1, which agrees,
and 200 K for V2, which carries the erratum of that row along.
"""

from __future__ import annotations

from typing import Any

from experiments.report import compare, report
from keras_mobilenets.architecture import make_plan

BYTES = 2  # 16-bit activations
SIZES = (112, 56, 28, 14, 7, 1)
NETWORKS = ("mobilenet_v1", "mobilenet_v2")

# size, then channels/kB for V1, V2 and ShuffleNet (2x, g=3): with the appendix
PAPER = (
    ("112x112", "64/1600", "16/400", "32/800"),
    ("56x56", "128/800", "32/200", "48/300"),
    ("28x28", "256/400", "64/100", "400/600K"),
    ("14x14", "512/200", "160/62", "800/310"),
    ("7x7", "1024/199", "320/32", "1600/156"),
    ("1x1", "1024/2", "1280/2", "1600/3"),
    ("max", "1600K", "400K", "600K"),
)

# The rows that differ in the version without the appendix.
PAPER_WITHOUT_APPENDIX = (
    ("112x112", "1/O(1)", "1/O(1)", "1/O(1)"),
    ("max", "800K", "200K", "600K"),
)

INPUT_SIDE = "the c of Table 2's row whose input has this size, not of its tensors"
ERRATA = {
    ("mobilenet_v2", 56): f"{INPUT_SIDE}, which have 24 channels",
    ("mobilenet_v2", 28): f"{INPUT_SIDE}, which have 32 channels",
    ("mobilenet_v2", 14): f"{INPUT_SIDE}, which have 96 channels",
    ("mobilenet_v1", 7): "twice 7 x 7 x 1024 values of 2 bytes, which are 100 kB",
}


def widest(name: str) -> dict[int, int]:
    """Size of the map to the most channels kept there, largest size first."""
    plan = make_plan(name, pooling="avg", include_top=False)
    kept = [
        layer
        for layer in plan
        if name == "mobilenet_v1"
        or layer.name == "pool"
        or layer.name.endswith("_project")
    ]
    channels = dict.fromkeys(SIZES, 0)
    for layer in kept:
        channels[layer.size_out] = max(channels[layer.size_out], layer.channels_out)
    return channels


def kilobytes(size: int, channels: int) -> float:
    return size * size * channels * BYTES / 1000


def compare_memory(row: str, name: str, paper: str, ours: float, erratum: str):
    """A row of kilobytes: they agree within 1 % or 1 kB."""
    unit = max(1.0, 0.01 * float(paper))
    return compare(row, f"{name} kB", paper, ours, unit=unit, erratum=erratum)


def rows() -> list[dict[str, Any]]:
    table = []
    channels = {name: widest(name) for name in NETWORKS}
    memory = {
        name: [kilobytes(size, channels[name][size]) for size in SIZES]
        for name in NETWORKS
    }
    *sizes, largest = PAPER
    for i, ((label, *cells, shufflenet), size) in enumerate(
        zip(sizes, SIZES, strict=True)
    ):
        for name, cell in zip(NETWORKS, cells, strict=True):
            wide, kb = cell.split("/")
            erratum = ERRATA.get((name, size), "")
            in_channels = erratum if name == "mobilenet_v2" else ""
            ours = channels[name][size]
            table += [
                compare(label, f"{name} channels", wide, ours, erratum=in_channels),
                compare_memory(label, name, kb, memory[name][i], erratum),
            ]
        table.append(compare(label, "ShuffleNet channels/kB", shufflenet))

    maxima = (
        (largest, 0, ("", "")),
        (PAPER_WITHOUT_APPENDIX[1], 1, ("", ERRATA["mobilenet_v2", 56])),
    )
    for (_, *cells, shufflenet), first, errata in maxima:
        label = f"max from {SIZES[first]}x{SIZES[first]} on"
        for name, cell, erratum in zip(NETWORKS, cells, errata, strict=True):
            kb = max(memory[name][first:])
            table.append(
                compare_memory(label, name, cell.removesuffix("K"), kb, erratum)
            )
        table.append(compare(label, "ShuffleNet kB", shufflenet))
    return table


if __name__ == "__main__":
    report(__file__, __doc__, rows())
