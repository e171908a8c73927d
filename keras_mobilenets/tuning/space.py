"""What is searched: networks, alphas, resolutions, and the budget they must keep.

Costs come from the plan, so that the points within the budget are known before
any network is built. Nothing here imports TensorFlow.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from keras_mobilenets.architecture import NETWORKS
from keras_mobilenets.architecture.arguments import (
    NATIVE_RESOLUTION,
    check_alpha,
    check_classes,
    check_name,
    check_number,
    check_resolution,
)
from keras_mobilenets.architecture.published import published
from keras_mobilenets.errors import UsageError
from keras_mobilenets.tuning.points import LIMITS, POINT, Point, priced, share

if TYPE_CHECKING:
    import keras_tuner

ALPHAS = (0.35, 0.5, 0.75, 1.0)  # V2's published grid
RESOLUTIONS = (96, 128, 160, 192, 224)

# Each range: from where to where it may reach, and how it is sampled.
RANGES = {
    "learning_rate": (0.0, float("inf"), "log"),
    "weight_decay": (0.0, float("inf"), "log"),
    "dropout": (0.0, 0.99, "linear"),  # 1 would drop everything
}

# Where a space has no point within the budget, these are tried beside it.
OTHER_ALPHAS = (0.1, 0.2, 0.25, 0.35, 0.5, 0.75, 1.0)
OTHER_RESOLUTIONS = tuple(range(32, NATIVE_RESOLUTION + 1, 32))
NAMED = 3  # points named in an error


Latency = Mapping[tuple[str, float, int], float] | Callable[..., float | None]


@dataclasses.dataclass(frozen=True)
class Space:
    """The networks to search, and the budget that each of them must keep.

    Args:
        names: networks, by default MobileNetV2 alone.
        alphas: width multipliers, by default those published for V2.
        resolutions: input sides in pixels, by default those published for V2.
        rhos: the same as multiples of 224; give one of the two.
        classes: of the classifier, which counts in mult-adds and parameters.
        max_macs: mult-adds of one image, a plain count (150e6, not 150).
        max_params: parameters, a plain count.
        max_memory: bytes of activations of the largest step, as in `cost`.
        max_latency_ms: milliseconds. A point without a known latency is not
            within it.
        latency: where milliseconds come from: a mapping of (name, alpha,
            resolution), or a function of the three that may return None. By
            default the published ones, of one large core of a Google Pixel 1.
        learning_rate, weight_decay: (low, high), searched on a log scale.
        dropout: (low, high), searched on a linear scale.
        variant: variations of all the networks, as in `cost`: {"expansion": 4}.

    Raises:
        ValueError: an argument that is not as above, or a budget that none of the
            points keeps; the nearest points that would are named.

    >>> space = Space(alphas=(0.35, 1.0), resolutions=(96, 224), max_macs=70e6)
    >>> [point.key[1:] for point in space.feasible]
    [(0.35, 96), (0.35, 224), (1.0, 96)]
    """

    names: tuple[str, ...] = ("mobilenet_v2",)
    alphas: tuple[float, ...] = ALPHAS
    resolutions: tuple[int, ...] | None = None
    rhos: dataclasses.InitVar[tuple[float, ...] | None] = None
    classes: int = 1000
    max_macs: float | None = None
    max_params: float | None = None
    max_memory: float | None = None
    max_latency_ms: float | None = None
    latency: Latency | None = None
    learning_rate: tuple[float, float] | None = None
    weight_decay: tuple[float, float] | None = None
    dropout: tuple[float, float] | None = None
    variant: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    _measured: dict[tuple, float | None] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self, rhos: tuple[float, ...] | None) -> None:
        def settle(field: str, value: Any) -> None:
            object.__setattr__(self, field, value)

        settle("names", _several("names", self.names, check_name))
        settle("alphas", _several("alphas", self.alphas, check_alpha))
        if rhos is None:
            pixels = RESOLUTIONS if self.resolutions is None else self.resolutions
            check = functools.partial(check_resolution, None)
            settle("resolutions", _several("resolutions", pixels, check))
        elif self.resolutions is None:
            check = functools.partial(check_resolution, resolution=None)
            settle("resolutions", _several("rhos", rhos, check))
        else:
            raise UsageError(
                f"give rhos or resolutions, not both; got rhos={rhos!r} and "
                f"resolutions={self.resolutions!r} (rho = resolution / "
                f"{NATIVE_RESOLUTION})"
            )
        settle("classes", check_classes(self.classes))
        for limit in LIMITS:
            if (value := getattr(self, limit)) is not None:
                settle(limit, check_number(limit, value, low=0, open_low=True))
        for name, (least, most, sampling) in RANGES.items():
            if (bounds := getattr(self, name)) is not None:
                settle(name, _check_range(name, bounds, least, most, sampling))
        if not (
            self.latency is None
            or callable(self.latency)
            or isinstance(self.latency, Mapping)
        ):
            raise UsageError(
                "latency must be a mapping of (name, alpha, resolution) to "
                f"milliseconds, or a function of the three; got {self.latency!r}"
            )
        if not self.feasible:
            raise UsageError(self._why_infeasible())

    @functools.cached_property
    def feasible(self) -> tuple[Point, ...]:
        """The points within the budget, in the order of the arguments."""
        return tuple(self._within(self.names, self.alphas, self.resolutions))

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by the name of their argument."""
        return {
            limit: getattr(self, limit)
            for limit in LIMITS
            if getattr(self, limit) is not None
        }

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The continuous hyperparameters that are searched: (low, high) of each."""
        return {
            name: getattr(self, name)
            for name in RANGES
            if getattr(self, name) is not None
        }

    def declare(self, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
        """Declare the hyperparameters of this space; returns their values in `hp`.

        Those that have none take the first feasible point. A value that no feasible
        point has is not among the choices.
        """
        first = self.feasible[0]
        values = {
            field: hp.Choice(
                field,
                list(dict.fromkeys(getattr(point, field) for point in self.feasible)),
                default=getattr(first, field),
            )
            for field in POINT
        }
        for name, (low, high) in self.ranges.items():
            values[name] = hp.Float(name, low, high, sampling=RANGES[name][2])
        return values

    def point(self, name: str, alpha: float, resolution: int) -> Point:
        """A network with its costs, in the space or not; its latency where known."""
        point = priced(name, alpha, resolution, self.classes, self.variant)
        return point._replace(latency_ms=self._latency(point))

    def _latency(self, point: Point) -> float | None:
        known = self.latency
        if known is None:
            known = {} if self.variant else _published_latency()
        if point.key not in self._measured:  # measuring may take its time
            value = known(*point.key) if callable(known) else known.get(point.key)
            if value is not None:
                value = check_number(f"latency of {point}", value, low=0)
            self._measured[point.key] = value
        return self._measured[point.key]

    def _within(
        self, names: Iterable[str], alphas: Iterable[float], sizes: Iterable[int]
    ) -> Iterable[Point]:
        unmeasured = {k: v for k, v in self.limits.items() if k != "max_latency_ms"}
        for name, alpha, size in itertools.product(names, alphas, sizes):
            point = priced(name, alpha, size, self.classes, self.variant)
            if share(point, unmeasured) > 1:
                continue  # not measured in vain
            point = point._replace(latency_ms=self._latency(point))
            if share(point, self.limits) <= 1:
                yield point

    def _why_infeasible(self) -> str:
        limits = self.limits

        def costs_of(point: Point) -> str:
            parts = []
            for limit in limits:
                field, form = LIMITS[limit]
                value = getattr(point, field)
                parts.append(
                    "no known latency" if value is None else form.format(value)
                )
            return f"{point}: {', '.join(parts)}"

        def listed(points: Iterable[Point]) -> str:
            return "; ".join(map(costs_of, points))

        asked = itertools.product(self.names, self.alphas, self.resolutions)
        nearest = sorted(
            (self.point(*key) for key in asked), key=lambda p: share(p, limits)
        )
        message = (
            f"{' and '.join(f'{k}={v:g}' for k, v in limits.items())} must leave at "
            f"least one of the {len(nearest)} points of the space; it leaves none. "
            f"Nearest to it are {listed(nearest[:NAMED])}"
        )
        if callable(self.latency):  # measuring outside of the space is not ours to ask
            return (
                f"{message}. Raise the budget, or make alphas and resolutions smaller"
            )
        others = sorted(
            self._within(
                self.names,
                sorted({*self.alphas, *OTHER_ALPHAS}),
                sorted({*self.resolutions, *OTHER_RESOLUTIONS}),
            ),
            key=lambda p: (-share(p, limits), -p.macs),
        )
        if not others:
            return (
                f"{message}. No smaller network is within it either: raise the budget"
            )
        return (
            f"{message}. Within it would be {listed(others[:NAMED])}: add such an "
            "alpha or resolution, or raise the budget"
        )


@functools.cache
def _published_latency() -> dict[tuple[str, float, int], float]:
    return {p[:3]: p.latency_ms for p in published() if p.latency_ms is not None}


def _several(argument: str, values: Any, check: Callable[[Any], Any]) -> tuple:
    """At least one value, each checked, none twice, in the order given."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        values = (values,)
    values = tuple(values)
    if not values:
        accepted = {"names": f"of {', '.join(NETWORKS)}"}.get(argument, "number")
        raise UsageError(f"{argument} must hold at least one {accepted}; got none")
    return tuple(dict.fromkeys(check(value) for value in values))


def _check_range(
    name: str, bounds: Any, least: float, most: float, sampling: str
) -> tuple[float, float]:
    try:
        low, high = bounds
    except (TypeError, ValueError):
        raise UsageError(
            f"{name} must be a range (low, high); got {bounds!r}; a single value "
            "belongs in the recipe"
        ) from None
    low = check_number(f"{name}[0]", low, low=least, open_low=sampling == "log")
    high = check_number(f"{name}[1]", high, low=low, open_low=True, high=most)
    return low, high
