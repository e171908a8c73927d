"""MobileNetV1 Table 4: full against depthwise separable convolutions.

Howard et al. 2017 (arXiv:1704.04861), Table 4: the network with an ordinary 3x3
convolution in place of each separable one, at 224 pixels.

Erratum: the 4866 M of the full network leave out the classifier (4866.3 M
without, 4867.3 M with), the 569 M of MobileNet contain it (567.7 M without).
"""

from __future__ import annotations

from typing import Any

from experiments.report import compare, compare_network, report
from keras_mobilenets.architecture import cost

# model, mult-adds in millions, parameters in millions
PAPER = (
    ("Conv MobileNet", "4866", "29.3"),
    ("MobileNet", "569", "4.2"),
)

ERRATUM = "leaves out the classifier, which MobileNet's 569 M contain"


def rows() -> list[dict[str, Any]]:
    (full, *full_costs), (separable, *separable_costs) = PAPER
    body = cost("mobilenet_v1", separable=False, include_top=False).macs / 1e6
    return [
        *compare_network(
            full, *full_costs, "mobilenet_v1", separable=False, errata=(ERRATUM, "")
        ),
        compare(f"{full}, no classifier", "mult-adds (M)", full_costs[0], body),
        *compare_network(separable, *separable_costs, "mobilenet_v1"),
    ]


if __name__ == "__main__":
    report(__file__, __doc__, rows())
