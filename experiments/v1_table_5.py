"""MobileNetV1 Table 5: narrow against shallow.

Howard et al. 2017 (arXiv:1704.04861), Table 5: alpha 0.75 beside the network
without its five 14x14x512 separable layers, both at 224 pixels. No erratum.
"""

from __future__ import annotations

from typing import Any

from experiments.report import compare_network, report

# model, mult-adds in millions, parameters in millions
PAPER = (
    ("0.75 MobileNet", "325", "2.6"),
    ("Shallow MobileNet", "307", "2.9"),
)

SETTINGS: tuple[dict[str, Any], ...] = ({"alpha": 0.75}, {"shallow": True})


def rows() -> list[dict[str, Any]]:
    return [
        row
        for paper, settings in zip(PAPER, SETTINGS, strict=True)
        for row in compare_network(*paper, "mobilenet_v1", **settings)
    ]


if __name__ == "__main__":
    report(__file__, __doc__, rows())
