"""A point of a search: one network, what it costs, and what may be limited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from keras_mobilenets.architecture import cost
from keras_mobilenets.architecture.arguments import rho_of
from keras_mobilenets.architecture.shapes import Resolution, from_plain, plain

Key = tuple[str, float, Resolution]
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
    resolution: Resolution
    macs: int
    params: int
    peak_memory: int
    latency_ms: float | None  # None: not known

    @property
    def rho(self) -> float | None:
        return rho_of(self.resolution)

    @property
    def key(self) -> Key:
        return self[:3]

    @property
    def plain(self) -> dict[str, Any]:
        """What `POINT` names, as text and numbers: in a table 96, or "96x160"."""
        return dict(zip(POINT, (*self[:2], plain(self.resolution)), strict=True))

    def __str__(self) -> str:
        return f"{self.name} alpha {self.alpha:g} at {plain(self.resolution)} px"


def key_of(values: Mapping[str, Any]) -> Key:
    """The key of the point that hyperparameters, or a row of a table, name."""
    name, alpha, resolution = (values[field] for field in POINT)
    return name, alpha, from_plain(resolution)


def priced(
    name: str,
    alpha: float,
    resolution: Resolution,
    classes: int,
    variant: Mapping[str, Any],
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
