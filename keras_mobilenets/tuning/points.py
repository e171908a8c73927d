"""A point of a search: one network, what it costs, and what may be limited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from keras_mobilenets.architecture import cost
from keras_mobilenets.architecture.arguments import NATIVE_RESOLUTION

POINT = ("name", "alpha", "resolution")  # hyperparameters that a point settles

# Each limit, what of a point it limits, and how the two are written.
LIMITS = {
    "max_macs": ("macs", "{:,} mult-adds"),
    "max_params": ("params", "{:,} parameters"),
    "max_memory": ("peak_memory", "{:,} bytes of activations"),
    "max_latency_ms": ("latency_ms", "{:g} ms"),
}


class Point(NamedTuple):
    """One network of a space and what it costs; memory in bytes, one image."""

    name: str
    alpha: float
    resolution: int
    macs: int
    params: int
    peak_memory: int
    latency_ms: float | None  # None: not known

    @property
    def rho(self) -> float:
        return self.resolution / NATIVE_RESOLUTION

    @property
    def key(self) -> tuple[str, float, int]:
        return self[:3]

    def __str__(self) -> str:
        return f"{self.name} alpha {self.alpha:g} at {self.resolution} px"


def priced(
    name: str, alpha: float, resolution: int, classes: int, variant: Mapping[str, Any]
) -> Point:
    """A point with what the plan says that it costs; its latency is not known."""
    price = cost(name, alpha=alpha, resolution=resolution, classes=classes, **variant)
    counts = (price.macs, price.params, price.peak_memory)
    return Point(name, alpha, resolution, *counts, latency_ms=None)


def largest_fraction(point: Point, limits: Mapping[str, float]) -> float:
    """The most that a point takes of any limit: at most 1 where it keeps all of them.

    What is not known takes all there is.
    """
    values = ((getattr(point, LIMITS[k][0]), v) for k, v in limits.items())
    return max(
        (float("inf") if value is None else value / limit for value, limit in values),
        default=0.0,
    )
