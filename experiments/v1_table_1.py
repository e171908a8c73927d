"""MobileNetV1 Table 1: the body, layer by layer.

Howard et al. 2017 (arXiv:1704.04861), Table 1. Every printed row (stride, filter
shape, input size) stands beside the layer that the plan has there; five equal
pairs of layers make one printed pair.

Erratum: stride 2 is printed for the last depthwise layer, whose output would
then be 4x4. The mult-adds decide: with stride 1 the network costs the 569 M that
Tables 4 and 6 to 8 print, with stride 2 it costs 533.8 M.
"""

from __future__ import annotations

from typing import Any

from experiments.report import CLASSES, compare, report
from keras_mobilenets.architecture import Layer, make_plan, plan_cost

# type, stride, filter shape, input size
PAPER = (
    ("Conv", "2", "3x3x3x32", "224x224x3"),
    ("Conv dw", "1", "3x3x32 dw", "112x112x32"),
    ("Conv", "1", "1x1x32x64", "112x112x32"),
    ("Conv dw", "2", "3x3x64 dw", "112x112x64"),
    ("Conv", "1", "1x1x64x128", "56x56x64"),
    ("Conv dw", "1", "3x3x128 dw", "56x56x128"),
    ("Conv", "1", "1x1x128x128", "56x56x128"),
    ("Conv dw", "2", "3x3x128 dw", "56x56x128"),
    ("Conv", "1", "1x1x128x256", "28x28x128"),
    ("Conv dw", "1", "3x3x256 dw", "28x28x256"),
    ("Conv", "1", "1x1x256x256", "28x28x256"),
    ("Conv dw", "2", "3x3x256 dw", "28x28x256"),
    ("Conv", "1", "1x1x256x512", "14x14x256"),
    ("5x Conv dw", "1", "3x3x512 dw", "14x14x512"),
    ("5x Conv", "1", "1x1x512x512", "14x14x512"),
    ("Conv dw", "2", "3x3x512 dw", "14x14x512"),
    ("Conv", "1", "1x1x512x1024", "7x7x512"),
    ("Conv dw", "2", "3x3x1024 dw", "7x7x1024"),
    ("Conv", "1", "1x1x1024x1024", "7x7x1024"),
    ("Avg Pool", "1", "Pool 7x7", "7x7x1024"),
    ("FC", "1", "1024x1000", "1x1x1024"),
    ("Softmax", "1", "Classifier", "1x1x1000"),
)

COLUMNS, IN_WORDS = "layer", "{0}, s{1}, {2} on {3}"
MISPRINTED = 18  # the row with the erratum
MULT_ADDS_M, LAYERS = "569", "28"  # Table 4; section 3.2

TYPE = {"conv": "Conv", "depthwise": "Conv dw", "avg_pool": "Avg Pool", "dense": "FC"}

ERRATUM = "the stride must be 1: with 2 the network would cost 533.8 M, not 569 M"


def printed(layer: Layer) -> tuple[str, str, str, str]:
    """A layer of the plan in the words of Table 1."""
    k, c_in, c_out = layer.kernel, layer.channels_in, layer.channels_out
    shape = {
        "conv": f"{k}x{k}x{c_in}x{c_out}",
        "depthwise": f"{k}x{k}x{c_out} dw",
        "avg_pool": f"Pool {layer.size_in}x{layer.size_in}",
        "dense": f"{c_in}x{c_out}",
    }[layer.kind]
    size = f"{layer.size_in}x{layer.size_in}x{c_in}"
    return TYPE[layer.kind], str(layer.stride), shape, size


def printed_plan(plan: tuple[Layer, ...]) -> list[tuple[str, str, str, str]]:
    """The plan in the rows of Table 1: equal pairs in a row are one "5x" pair."""
    layers = [printed(layer) for layer in plan if layer.kind in TYPE]
    stem, body, head = layers[:1], layers[1:-2], layers[-2:]
    pairs: list[list] = []
    for pair in zip(body[::2], body[1::2], strict=True):
        if pairs and pairs[-1][1] == pair:
            pairs[-1][0] += 1
        else:
            pairs.append([1, pair])
    rows = [
        (f"{count}x {kind}" if count > 1 else kind, *rest)
        for count, pair in pairs
        for kind, *rest in pair
    ]
    softmax = ("Softmax", "1", "Classifier", f"1x1x{plan[-1].channels_out}")
    return [*stem, *rows, *head, softmax]


def as_misprinted(plan: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The plan with the stride 2 that the paper prints for the last depthwise."""
    change = {
        "block_13_depthwise": {"stride": 2, "size_out": 4},
        "block_13_project": {"size_in": 4, "size_out": 4},
    }
    return tuple(layer._replace(**change.get(layer.name, {})) for layer in plan)


def rows() -> list[dict[str, Any]]:
    plan = make_plan("mobilenet_v1", classes=CLASSES)
    table = []
    for number, (paper, ours) in enumerate(
        zip(PAPER, printed_plan(plan), strict=True), start=1
    ):
        erratum = ERRATUM if number == MISPRINTED else ""
        line, counted = IN_WORDS.format(*paper), IN_WORDS.format(*ours)
        table.append(compare(f"row {number}", COLUMNS, line, counted, erratum=erratum))
    weighted = sum(layer.kind in ("conv", "depthwise", "dense") for layer in plan)
    misprinted = plan_cost(as_misprinted(plan)).macs / 1e6
    quantity = "mult-adds (M)"
    return [
        *table,
        compare("all layers with weights", "count", LAYERS, weighted),
        compare("all, row 18 s1", quantity, MULT_ADDS_M, plan_cost(plan).macs / 1e6),
        compare("all, row 18 s2", quantity, MULT_ADDS_M, misprinted, erratum=ERRATUM),
    ]


if __name__ == "__main__":
    report(__file__, __doc__, rows())
