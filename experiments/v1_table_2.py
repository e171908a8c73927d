"""MobileNetV1 Table 2: where the mult-adds and parameters are.

Howard et al. 2017 (arXiv:1704.04861), Table 2: percent of mult-adds and of
parameters per type of layer, at alpha 1 and 224 pixels. The parameters are
kernels only (no bias, no batch norm): with them the column comes out exactly.

Erratum: 1.19 % of the mult-adds are printed for the one 3x3 convolution. Its
10.84 M of 568.74 M are 1.91 %, and only with 1.91 the column sums to 100.
"""

from __future__ import annotations

from typing import Any

from experiments.report import CLASSES, compare, report
from keras_mobilenets.architecture import Layer, make_plan, plan_cost

# type, percent of mult-adds, percent of parameters
PAPER = (
    ("Conv 1x1", "94.86", "74.59"),
    ("Conv DW 3x3", "3.06", "1.06"),
    ("Conv 3x3", "1.19", "0.02"),
    ("Fully Connected", "0.18", "24.33"),
)

ERRATA = {"Conv 3x3": "digits swapped: 10.84 M of 568.74 M mult-adds are 1.91 %"}


def type_of(layer: Layer) -> str | None:
    """The type of a layer in the paper's words."""
    return {
        ("conv", 1): "Conv 1x1",
        ("conv", 3): "Conv 3x3",
        ("depthwise", 3): "Conv DW 3x3",
        ("dense", 1): "Fully Connected",
    }.get((layer.kind, layer.kernel))


def rows() -> list[dict[str, Any]]:
    macs = dict.fromkeys((row[0] for row in PAPER), 0)
    kernels = dict(macs)
    for layer in plan_cost(make_plan("mobilenet_v1", classes=CLASSES)).layers:
        if kind := type_of(layer.layer):
            macs[kind] += layer.macs
            kernels[kind] += layer.macs // layer.layer.pixels_out
    table = []
    for kind, macs_percent, params_percent in PAPER:
        macs_share = 100 * macs[kind] / sum(macs.values())
        share = 100 * kernels[kind] / sum(kernels.values())
        erratum = ERRATA.get(kind, "")
        table += [
            compare(kind, "mult-adds (%)", macs_percent, macs_share, erratum=erratum),
            compare(kind, "params (%)", params_percent, share),
        ]
    return table


if __name__ == "__main__":
    report(__file__, __doc__, rows())
