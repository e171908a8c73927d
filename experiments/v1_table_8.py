"""MobileNetV1 Table 8: beside popular models.

Howard et al. 2017 (arXiv:1704.04861), Table 8. Only MobileNet is counted here;
the other two are quoted. No erratum.
"""

from __future__ import annotations

from typing import Any

from experiments.report import compare_network, quote_network, report

# model, mult-adds in millions, parameters in millions
PAPER = (
    ("1.0 MobileNet-224", "569", "4.2"),
    ("GoogleNet", "1550", "6.8"),
    ("VGG 16", "15300", "138"),
)


def rows() -> list[dict[str, Any]]:
    mobilenet, *others = PAPER
    return [
        *compare_network(*mobilenet, "mobilenet_v1"),
        *(row for other in others for row in quote_network(*other)),
    ]


if __name__ == "__main__":
    report(__file__, __doc__, rows())
