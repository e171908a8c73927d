"""MobileNetV1 Table 7: the resolution multiplier.

Howard et al. 2017 (arXiv:1704.04861), Table 7: 224 to 128 pixels at alpha 1.
No erratum (290 is 290.7 truncated).
"""

from __future__ import annotations

from typing import Any

from experiments.report import compare_network, report

# model, mult-adds in millions, parameters in millions
PAPER = (
    ("1.0 MobileNet-224", "569", "4.2"),
    ("1.0 MobileNet-192", "418", "4.2"),
    ("1.0 MobileNet-160", "290", "4.2"),
    ("1.0 MobileNet-128", "186", "4.2"),
)

RESOLUTIONS = (224, 192, 160, 128)


def rows() -> list[dict[str, Any]]:
    return [
        row
        for paper, resolution in zip(PAPER, RESOLUTIONS, strict=True)
        for row in compare_network(*paper, "mobilenet_v1", resolution=resolution)
    ]


if __name__ == "__main__":
    report(__file__, __doc__, rows())
