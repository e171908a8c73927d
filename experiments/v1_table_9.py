"""MobileNetV1 Table 9: a smaller MobileNet beside popular models.

Howard et al. 2017 (arXiv:1704.04861), Table 9. Only MobileNet is counted here;
the other two are quoted. No erratum in the costs (76 is 76.5 truncated).
"""

from __future__ import annotations

from typing import Any

from experiments.report import compare_network, quote_network, report

# model, mult-adds in millions, parameters in millions
PAPER = (
    ("0.50 MobileNet-160", "76", "1.32"),
    ("Squeezenet", "1700", "1.25"),
    ("AlexNet", "720", "60"),
)


def rows() -> list[dict[str, Any]]:
    mobilenet, *others = PAPER
    return [
        *compare_network(*mobilenet, "mobilenet_v1", alpha=0.5, resolution=160),
        *(row for other in others for row in quote_network(*other)),
    ]


if __name__ == "__main__":
    report(__file__, __doc__, rows())
