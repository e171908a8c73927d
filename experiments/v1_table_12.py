"""MobileNetV1 Table 12: face attributes.

Howard et al. 2017 (arXiv:1704.04861), Table 12: MobileNets that learned to emulate a
larger network's answers about faces. The data are the authors' own, so no precision
can be had here. The number of attributes is not given; the costs are those of the
body alone, and so are ours.

Errata. At alpha 0.25 the body has 40.8 M mult-adds at 224 pixels (Table 6, with the
classifier: 41 M), not 45 M, and 13.3 M at 128 pixels, not 15 M. The text gives the
baseline 75 million parameters, the table 7.5.
"""

from __future__ import annotations

from typing import Any

from experiments.report import compare, compare_network, quote_network, report

# model, mean average precision, mult-adds in millions, parameters in millions
PAPER = (
    ("1.0 MobileNet-224", "88.7", "568", "3.2"),
    ("0.5 MobileNet-224", "88.1", "149", "0.8"),
    ("0.25 MobileNet-224", "87.2", "45", "0.2"),
    ("1.0 MobileNet-128", "88.1", "185", "3.2"),
    ("0.5 MobileNet-128", "87.7", "48", "0.8"),
    ("0.25 MobileNet-128", "86.4", "15", "0.2"),
    ("Baseline", "86.9", "1600", "7.5"),
)

SETTINGS = ((1.0, 224), (0.5, 224), (0.25, 224), (1.0, 128), (0.5, 128), (0.25, 128))
NO_DATA = "no training here: the photographs of faces are not public"
ERRATA = {
    "0.25 MobileNet-224": "the body has 40.8 M; Table 6 has 41 M with the classifier",
    "0.25 MobileNet-128": "the body has 13.3 M, 13.6 M with a classifier of 1,000",
}


def rows() -> list[dict[str, Any]]:
    *mobilenets, baseline = PAPER
    table = []
    for (name, precision, *costs), (alpha, resolution) in zip(
        mobilenets, SETTINGS, strict=True
    ):
        table += [
            compare(name, "mean AP (%)", precision, note=NO_DATA),
            *compare_network(
                name,
                *costs,
                "mobilenet_v1",
                errata=(ERRATA.get(name, ""), ""),
                include_top=False,
                alpha=alpha,
                resolution=resolution,
            ),
        ]
    name, precision, *costs = baseline
    return [
        *table,
        compare(name, "mean AP (%)", precision, note=NO_DATA),
        *quote_network(name, *costs),
    ]


if __name__ == "__main__":
    report(__file__, __doc__, rows())
