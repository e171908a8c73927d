"""MobileNetV1 Table 6: the width multiplier.

Howard et al. 2017 (arXiv:1704.04861), Table 6: alpha 1.0 to 0.25 at 224 pixels.
No erratum.
"""

from __future__ import annotations

from typing import Any

from experiments.report import compare_network, report

# model, mult-adds in millions, parameters in millions
PAPER = (
    ("1.0 MobileNet-224", "569", "4.2"),
    ("0.75 MobileNet-224", "325", "2.6"),
    ("0.5 MobileNet-224", "149", "1.3"),
    ("0.25 MobileNet-224", "41", "0.5"),
)

ALPHAS = (1.0, 0.75, 0.5, 0.25)


def rows() -> list[dict[str, Any]]:
    return [
        row
        for paper, alpha in zip(PAPER, ALPHAS, strict=True)
        for row in compare_network(*paper, "mobilenet_v1", alpha=alpha)
    ]


if __name__ == "__main__":
    report(__file__, __doc__, rows())
