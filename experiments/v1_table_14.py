"""MobileNetV1 Table 14: MobileNets distilled from FaceNet.

Howard et al. 2017 (arXiv:1704.04861), Table 14: networks that learned FaceNet's
embedding of faces. Neither FaceNet's photographs nor its weights are public, so no
accuracy can be had here. What maps the body to the embedding is not described
either: its parameters are a dash, and the mult-adds are those of the body alone.

Errata. Two rows are both called 0.75 MobileNet-128; 166 M belong to 160 pixels. The
286 M of 1.0 at 160 pixels are fewer than the body's 289.7 M. The last row has 2 M
mult-adds and 2.0 M parameters more than the body, as a dense layer would add both;
in the other rows the two do not go together.
"""

from __future__ import annotations

from typing import Any

from experiments.report import compare, kernels_and_bias, quote_network, report
from keras_mobilenets.architecture import make_plan, plan_cost

# model, accuracy at 1e-4 false accepts, mult-adds in millions, parameters in millions
PAPER = (
    ("FaceNet", "83", "1600", "7.5"),
    ("1.0 MobileNet-160", "79.4", "286", "4.9"),
    ("1.0 MobileNet-128", "78.3", "185", "5.5"),
    ("0.75 MobileNet-128", "75.2", "166", "3.4"),
    ("0.75 MobileNet-128", "72.5", "108", "3.8"),
)

SETTINGS = ((1.0, 160), (1.0, 128), (0.75, 128), (0.75, 128))
NO_DATA = "no training here: neither FaceNet's photographs nor its weights are public"
NO_HEAD = "the layers behind the body are not described; the body alone has {:.2f} M"
MISLABELLED = 3  # the row that is 0.75 MobileNet-160
ERRATA = {
    1: "fewer than the 289.7 M of the body alone",
    MISLABELLED: "166 M belong to 160 pixels: the label stands twice",
    4: "the body alone has 106.0 M; what adds 2 M is not described",
}


def rows() -> list[dict[str, Any]]:
    name, accuracy, *costs = PAPER[0]
    table = [
        compare(name, "accuracy (%)", accuracy, note=NO_DATA),
        *quote_network(name, *costs),
    ]
    for number, (alpha, resolution) in enumerate(SETTINGS, start=1):
        name, accuracy, macs, params = PAPER[number]
        label = f"row {number}: {name}"
        plan = make_plan(
            "mobilenet_v1", alpha=alpha, resolution=resolution, include_top=False
        )
        ours = plan_cost(plan).macs / 1e6
        erratum = ERRATA.get(number, "")
        head = NO_HEAD.format(kernels_and_bias(plan) / 1e6)
        table += [
            compare(label, "accuracy (%)", accuracy, note=NO_DATA),
            compare(label, "mult-adds (M)", macs, ours, erratum=erratum),
            compare(label, "params (M)", params, note=head),
        ]
        if number == MISLABELLED:
            plan = make_plan(
                "mobilenet_v1", alpha=alpha, resolution=160, include_top=False
            )
            ours = plan_cost(plan).macs / 1e6
            label = f"row {number} as 0.75 MobileNet-160"
            table.append(compare(label, "mult-adds (M)", macs, ours))
    return table


if __name__ == "__main__":
    report(__file__, __doc__, rows())
