"""MobileNetV2 Table 4: parameters, mult-adds and latency on ImageNet.

Sandler et al. 2018 (arXiv:1801.04381), Table 4. The MobileNets are counted, the
others quoted. Milliseconds are one large core of a Google Pixel 1, quoted beside
those of the authors' later README (73.8 and 138.0).

Errata. V1 has 575 M mult-adds here and 569 M in its own paper, which the count
confirms. V2 at alpha 1.4 has 582.2 M, as the authors' README says, not 585 M; and
6.06 M parameters, as that README says too: with batch norm's four vectors it has
6.16 M, so no way of counting gives 6.9 M.
"""

from __future__ import annotations

from typing import Any

from experiments.report import compare, compare_network, quote_network, report
from keras_mobilenets.architecture import recommend

# network, parameters in millions, mult-adds in millions, milliseconds
PAPER = (
    ("MobileNetV1", "4.2", "575", "113"),
    ("ShuffleNet (1.5)", "3.4", "292", "-"),
    ("ShuffleNet (x2)", "5.4", "524", "-"),
    ("NasNet-A", "5.3", "564", "183"),
    ("MobileNetV2", "3.4", "300", "75"),
    ("MobileNetV2 (1.4)", "6.9", "585", "143"),
)

OURS: dict[str, tuple[str, float]] = {
    "MobileNetV1": ("mobilenet_v1", 1.0),
    "MobileNetV2": ("mobilenet_v2", 1.0),
    "MobileNetV2 (1.4)": ("mobilenet_v2", 1.4),
}

# errata of mult-adds and of parameters
ERRATA = {
    "MobileNetV1": ("V1's own paper has 569 M, and so has the count", ""),
    "MobileNetV2 (1.4)": (
        "the authors' README has 582 M, and so has the count",
        "the authors' README has 6.06 M; all variables together are 6.16 M",
    ),
}


def latency_note(label: str) -> str:
    """The latency that the authors' later README gives, where it differs."""
    if not label.startswith("MobileNetV2"):
        return ""
    name, alpha = OURS[label]
    (point,) = (
        p for p in recommend(name=name) if (p.alpha, p.resolution) == (alpha, 224)
    )
    return f"{point.latency_ms} ms in the authors' README"


def rows() -> list[dict[str, Any]]:
    table = []
    for label, params, macs, latency in PAPER:
        if label in OURS:
            name, alpha = OURS[label]
            errata = ERRATA.get(label, ("", ""))
            table += compare_network(
                label, macs, params, name, alpha=alpha, errata=errata
            )
        else:
            table += quote_network(label, macs, params)
        table.append(compare(label, "CPU (ms)", latency, note=latency_note(label)))
    return table


if __name__ == "__main__":
    report(__file__, __doc__, rows())
