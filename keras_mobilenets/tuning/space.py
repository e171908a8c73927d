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
    rho_of,
)
from keras_mobilenets.architecture.published import published
from keras_mobilenets.architecture.shapes import Resolution, sides
from keras_mobilenets.errors import UsageError
from keras_mobilenets.options import Check, is_given, option, options_of
from keras_mobilenets.tuning.points import (
    LIMITS,
    POINT,
    Key,
    Point,
    largest_fraction,
    priced,
)

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


LITERT = "litert"  # a latency that `search` measures
Latency = str | Mapping[Key, float] | Callable[..., float | None]


def _several(check: Callable[[Any], Any]) -> Check:
    """At least one value, each checked, none twice, in the order given."""

    def several(name: str, values: Any) -> tuple:
        one = isinstance(values, str | bytes | bytearray | Mapping)
        values = (values,) if one or not isinstance(values, Iterable) else tuple(values)
        if not values or any(value is None for value in values):
            accepted = {"names": f"of {', '.join(NETWORKS)}"}.get(name, "number")
            raise UsageError(
                f"{name} must hold at least one {accepted}; got "
                f"{'None among them' if values else 'none'}"
            )
        return tuple(dict.fromkeys(check(value) for value in values))

    return several


def _limit(name: str, value: Any) -> float:
    return check_number(name, value, low=0, open_low=True)


def _latency(name: str, value: Any) -> Any:
    named = isinstance(value, str) and value == LITERT
    if named or callable(value) or isinstance(value, Mapping):
        return value
    raise UsageError(
        "latency must be a mapping of (name, alpha, resolution) to milliseconds, a "
        f'function of the three, or "{LITERT}"; got {value!r}'
    )


def _range(name: str, bounds: Any) -> tuple[float, float]:
    least, most, sampling = RANGES[name]
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


def _unset(check: Check, help: str, **more: Any) -> Any:
    return option(check, help, None, none_is_default=True, **more)


@dataclasses.dataclass(frozen=True)
class Space:
    """The networks to search, and the budget that each of them must keep.

    Its options are those of `search` that say what is searched. Besides them:

    Args:
        classes: of the classifier, which counts in mult-adds and parameters.
        variant: variations of all the networks, and other channels than 3, as in
            `cost`: {"expansion": 4}.

    Raises:
        UsageError: an argument that is not as its help says, or a budget that none of
            the points keeps; the nearest points that would are named.

    >>> space = Space(alphas=(0.35, 1.0), resolutions=(96, 224), max_macs=70e6)
    >>> [point.key[1:] for point in space.feasible]
    [(0.35, 96), (0.35, 224), (1.0, 96)]
    """

    names: tuple[str, ...] = option(
        _several(check_name),
        "mobilenet_v1, mobilenet_v2 (default), or both",
        ("mobilenet_v2",),
        none_is_default=True,
    )
    alphas: tuple[float, ...] = option(
        _several(check_alpha),
        "width multipliers (default those published for V2; on digits 0.35 0.5)",
        ALPHAS,
        none_is_default=True,
    )
    resolutions: tuple[Resolution, ...] = _unset(
        _several(functools.partial(check_resolution, None)),
        "input sides in pixels, or (height, width) pairs, on the command line such as "
        "96x160 (default those published for V2; on digits 32 48)",
    )
    rhos: tuple[float, ...] | None = _unset(
        _several(lambda rho: rho_of(check_resolution(rho, resolution=None))),
        "the same as multiples of 224; give one of the two",
    )
    max_macs: float | None = _unset(
        _limit, "mult-adds of one image, a plain count such as 150e6"
    )
    max_params: float | None = _unset(_limit, "parameters, such as 2e6")
    max_memory: float | None = _unset(
        _limit, "bytes of activations of the largest step, as cost counts them"
    )
    max_latency_ms: float | None = _unset(
        _limit, "milliseconds; a point without a known latency is not within it"
    )
    latency: Latency | None = _unset(
        _latency,
        "where milliseconds come from: litert measures a file of each network, in one "
        "thread here; or a mapping of (name, alpha, resolution), or a function of the "
        "three that may return None (default the published ones, of one large core of "
        "a Google Pixel 1)",
    )
    learning_rate: tuple[float, float] | None = _unset(
        _range, "a number, or a range to search on a log scale, such as 0.01,0.1"
    )
    weight_decay: tuple[float, float] | None = _unset(
        _range, "a number, or a range to search on a log scale"
    )
    dropout: tuple[float, float] | None = _unset(
        _range, "a number, or a range to search, such as 0,0.5"
    )
    classes: int = 1000
    variant: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    _measured: dict[tuple, float | None] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        def settle(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        for name, field in options_of(Space).items():
            value = getattr(self, name)
            given = is_given(field, value)
            settle(
                name, field.metadata["check"](name, value) if given else field.default
            )
        if isinstance(self.latency, str):
            raise UsageError(
                f"latency={self.latency!r} is measured by search(); a Space takes a "
                "mapping or a function"
            )
        if self.rhos is not None and self.resolutions is not None:
            raise UsageError(
                f"give rhos or resolutions, not both; got rhos={self.rhos!r} and "
                f"resolutions={self.resolutions!r} (rho = resolution / "
                f"{NATIVE_RESOLUTION})"
            )
        if self.rhos is not None:
            pixels = tuple(round(rho * NATIVE_RESOLUTION) for rho in self.rhos)
            settle("resolutions", pixels)
        settle("resolutions", self.resolutions or RESOLUTIONS)
        settle("rhos", None)
        settle("classes", check_classes(self.classes))
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

    def values(self, point: Point) -> dict[str, Any]:
        """The hyperparameters of a point, of which KerasTuner wants one type each.

        The resolution is a number where all of the space are squares, else text.
        """
        values = point.plain
        if not self._squares:
            values["resolution"] = "x".join(map(str, sides(point.resolution)))
        return values

    @property
    def _squares(self) -> bool:
        return not any(isinstance(size, tuple) for size in self.resolutions)

    def declare(self, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
        """Declare the hyperparameters of this space; returns their values in `hp`.

        Those that have none take the first feasible point. A value that no feasible
        point has is not among the choices.
        """
        points = [self.values(point) for point in self.feasible]
        values = {
            field: hp.Choice(
                field,
                list(dict.fromkeys(point[field] for point in points)),
                default=points[0][field],
            )
            for field in POINT
        }
        for name, (low, high) in self.ranges.items():
            values[name] = hp.Float(name, low, high, sampling=RANGES[name][2])
        return values

    def point(self, name: str, alpha: float, resolution: Resolution) -> Point:
        """A network with its costs, in the space or not; its latency where known."""
        point = priced(name, alpha, resolution, self.classes, self.variant)
        return point._replace(latency_ms=self._latency(point))

    def _latency(self, point: Point) -> float | None:
        known = self.latency
        assert not isinstance(known, str)
        if known is None:
            known = {} if self.variant else _published_latency()
        if point.key not in self._measured:  # measuring may take its time
            value = known(*point.key) if callable(known) else known.get(point.key)
            if value is not None:
                value = check_number(f"latency of {point}", value, low=0)
            self._measured[point.key] = value
        return self._measured[point.key]

    def _within(
        self,
        names: Iterable[str],
        alphas: Iterable[float],
        sizes: Iterable[Resolution],
    ) -> Iterable[Point]:
        unmeasured = {k: v for k, v in self.limits.items() if k != "max_latency_ms"}
        for name, alpha, size in itertools.product(names, alphas, sizes):
            point = priced(name, alpha, size, self.classes, self.variant)
            if largest_fraction(point, unmeasured) > 1:
                continue  # not measured in vain
            point = point._replace(latency_ms=self._latency(point))
            if largest_fraction(point, self.limits) <= 1:
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
            (self.point(*key) for key in asked),
            key=lambda p: largest_fraction(p, limits),
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
        squares = OTHER_RESOLUTIONS if self._squares else ()
        others = sorted(
            self._within(
                self.names,
                sorted({*self.alphas, *OTHER_ALPHAS}),
                sorted({*self.resolutions, *squares}, key=sides),
            ),
            key=lambda p: (-largest_fraction(p, limits), -p.macs),
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
def _published_latency() -> dict[Key, float]:
    return {p[:3]: p.latency_ms for p in published() if p.latency_ms is not None}
