"""MobileNetV1 Table 10: Stanford Dogs.

Howard et al. 2017 (arXiv:1704.04861), Table 10: 120 breeds. The networks are counted
with a classifier of 120 classes; Inception V3 is quoted. No accuracy can be had
here.

Erratum: 569 M are the mult-adds with ImageNet's 1,000 classes, as in Table 4. With
these 120 they are 567.8 M. Its parameters, 3.3 M, are those with 120 classes.
"""

from __future__ import annotations

from typing import Any

from experiments.report import compare, compare_network, quote_network, report

BREEDS = 120  # of Stanford Dogs (Khosla et al. 2011)

# model, top-1 in percent, mult-adds in millions, parameters in millions
PAPER = (
    ("Inception V3", "84", "5000", "23.2"),
    ("1.0 MobileNet-224", "83.3", "569", "3.3"),
    ("0.75 MobileNet-224", "81.9", "325", "1.9"),
    ("1.0 MobileNet-192", "81.9", "418", "3.3"),
    ("0.75 MobileNet-192", "80.5", "239", "1.9"),
)

SETTINGS = ((1.0, 224), (0.75, 224), (1.0, 192), (0.75, 192))
NO_DATA = "no training here: neither the photographs nor the noisy ones from the web"
ERRATA = {
    "1.0 MobileNet-224": "569 M are those of 1,000 classes; with 120 they are 567.8 M"
}


def rows() -> list[dict[str, Any]]:
    inception, *mobilenets = PAPER
    name, top1, *costs = inception
    table = [
        compare(name, "top-1 (%)", top1, note=NO_DATA),
        *quote_network(name, *costs),
    ]
    for (name, top1, *costs), (alpha, resolution) in zip(
        mobilenets, SETTINGS, strict=True
    ):
        table += [
            compare(name, "top-1 (%)", top1, note=NO_DATA),
            *compare_network(
                name,
                *costs,
                "mobilenet_v1",
                errata=(ERRATA.get(name, ""), ""),
                classes=BREEDS,
                alpha=alpha,
                resolution=resolution,
            ),
        ]
    return table


if __name__ == "__main__":
    report(__file__, __doc__, rows())
