"""What the authors published for each alpha and resolution, and `recommend`.

Sources, all ImageNet single crop:
- V1: `research/slim/nets/mobilenet_v1.md` (float checkpoints of 2018-02-22).
- V2: `research/slim/nets/mobilenet/README.md`, with Pixel 1 CPU milliseconds.
- `paper_top1`: V1 Tables 6, 7 and 9; V2 Table 4. The 113 ms of V1 1.0-224 are
  V2 Table 4's.

Costs are recomputed (1001 classes, as the checkpoints have): slim's V1 table
prints the 0.75 rows without their first convolution and 0.25-192 as 34 M.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from keras_mobilenets.architecture.arguments import check_name, check_number
from keras_mobilenets.architecture.costing import cost

CLASSES = 1001  # ImageNet's 1000 and slim's background class


class Published(NamedTuple):
    """One published network: settings, accuracy in percent, latency, cost."""

    name: str
    alpha: float
    resolution: int
    top1: float
    top5: float
    latency_ms: float | None  # one large core of a Google Pixel 1, TF-Lite
    paper_top1: float | None
    macs: int
    params: int


V1_PAPER_TOP1 = {
    (1.0, 224): 70.6,
    (1.0, 192): 69.1,
    (1.0, 160): 67.2,
    (1.0, 128): 64.4,
    (0.75, 224): 68.4,
    (0.5, 224): 63.7,
    (0.5, 160): 60.2,
    (0.25, 224): 50.6,
}
V2_PAPER_TOP1 = {(1.0, 224): 72.0, (1.4, 224): 74.7}

# alpha, resolution, top-1, top-5, latency in ms
V1_ROWS = (
    (1.0, 224, 70.9, 89.9, 113.0),
    (1.0, 192, 70.0, 89.2, None),
    (1.0, 160, 68.0, 87.7, None),
    (1.0, 128, 65.2, 85.8, None),
    (0.75, 224, 68.4, 88.2, None),
    (0.75, 192, 67.2, 87.3, None),
    (0.75, 160, 65.3, 86.0, None),
    (0.75, 128, 62.1, 83.9, None),
    (0.5, 224, 63.3, 84.9, None),
    (0.5, 192, 61.7, 83.6, None),
    (0.5, 160, 59.1, 81.9, None),
    (0.5, 128, 56.3, 79.4, None),
    (0.25, 224, 49.8, 74.2, None),
    (0.25, 192, 47.7, 72.3, None),
    (0.25, 160, 45.5, 70.3, None),
    (0.25, 128, 41.5, 66.3, None),
)
V2_ROWS = (
    (1.4, 224, 75.0, 92.5, 138.0),
    (1.3, 224, 74.4, 92.1, 123.0),
    (1.0, 224, 71.8, 91.0, 73.8),
    (1.0, 192, 70.7, 90.1, 55.1),
    (1.0, 160, 68.8, 89.0, 40.2),
    (1.0, 128, 65.3, 86.9, 27.6),
    (1.0, 96, 60.3, 83.2, 17.6),
    (0.75, 224, 69.8, 89.6, 55.8),
    (0.75, 192, 68.7, 88.9, 41.6),
    (0.75, 160, 66.4, 87.3, 30.4),
    (0.75, 128, 63.2, 85.3, 21.9),
    (0.75, 96, 58.8, 81.6, 14.2),
    (0.5, 224, 65.4, 86.4, 28.7),
    (0.5, 192, 63.9, 85.4, 21.1),
    (0.5, 160, 61.0, 83.2, 14.9),
    (0.5, 128, 57.7, 80.8, 9.9),
    (0.5, 96, 51.2, 75.8, 6.4),
    (0.35, 224, 60.3, 82.9, 19.7),
    (0.35, 192, 58.2, 81.2, 14.6),
    (0.35, 160, 55.7, 79.1, 10.5),
    (0.35, 128, 50.8, 75.0, 6.9),
    (0.35, 96, 45.5, 70.4, 4.5),
)


@functools.cache
def published() -> tuple[Published, ...]:
    """All 38 published networks with their recomputed costs."""
    tables = (
        ("mobilenet_v1", V1_ROWS, V1_PAPER_TOP1),
        ("mobilenet_v2", V2_ROWS, V2_PAPER_TOP1),
    )
    points = []
    for name, rows, paper in tables:
        for alpha, resolution, top1, top5, latency in rows:
            price = cost(name, alpha=alpha, resolution=resolution, classes=CLASSES)
            points.append(
                Published(
                    name,
                    alpha,
                    resolution,
                    top1,
                    top5,
                    latency,
                    paper.get((alpha, resolution)),
                    price.macs,
                    price.params,
                )
            )
    return tuple(points)


def recommend(
    *,
    max_macs: float | None = None,
    max_params: float | None = None,
    max_latency_ms: float | None = None,
    min_top1: float | None = None,
    name: str | None = None,
) -> list[Published]:
    """The published networks within a budget, most accurate first.

    `max_macs` and `max_params` are plain counts (150e6, not 150), `max_latency_ms`
    milliseconds on a Pixel 1 (networks without a published latency are left out
    when it is given), `min_top1` percent, `name` one of the two networks.
    Equal accuracies are ordered by mult-adds. Nothing fits: an empty list. All are
    square and of RGB: what another shape costs says `cost`, what it is worth `search`.

    Raises:
        UsageError: a limit that is no number of its kind, or an unknown name.

    >>> best = recommend(max_macs=100e6)[0]
    >>> best.name, best.alpha, best.resolution
    ('mobilenet_v2', 0.5, 224)
    """
    limits: dict[str, Any] = {
        "macs": ("max_macs", max_macs),
        "params": ("max_params", max_params),
        "latency_ms": ("max_latency_ms", max_latency_ms),
    }
    for argument, value in limits.values():
        if value is not None:
            check_number(argument, value, low=0)
    if min_top1 is not None:  # from 1, for 0.7 is meant as 70 %
        fix = "it is in percent, such as 70"
        check_number("min_top1", min_top1, low=1, high=100, fix=fix)
    if name is not None:
        check_name(name)

    def fits(point: Published) -> bool:
        for field, (_, limit) in limits.items():
            value = getattr(point, field)
            if limit is not None and (value is None or value > limit):
                return False
        return (min_top1 is None or point.top1 >= min_top1) and (
            name is None or point.name == name
        )

    return sorted(filter(fits, published()), key=lambda p: (-p.top1, p.macs))
