"""The record that every recipe is: its fields, each with its check and its help.

A new field is one line here, and a value in named.py. The command line's help, the
report of a run and its check when it is resumed are made from the fields.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from keras_mobilenets.architecture.arguments import (
    check_choice,
    check_flag,
    check_integer,
    check_known,
    check_number,
    suggest,
)
from keras_mobilenets.errors import UsageError
from keras_mobilenets.options import NOT_GIVEN, Check, option, options_of

LARGEST = 1e30  # in float32 too, times any number of steps
MOST = 10**6  # epochs, images and workers: far above any use


def _single(value: float) -> float:
    """What float32 makes of a number; TensorFlow computes in it."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def number(
    low: float, high: float = LARGEST, *, above: bool = False, below: bool = False
) -> Check:
    """From `low` to `high`; `above`, `below`: without the end itself."""
    bounds: dict[str, Any] = {"low": low, "high": high}
    bounds |= {"open_low": above, "open_high": below}

    def check(name: str, value: Any) -> float:
        accepted = check_number(name, value, **bounds)
        held = _single(accepted)
        if (above and held <= low) or (below and held >= high):
            check_number(name, held, **bounds, fix=f"{value!r} is that in float32")
        return accepted

    return check


def integer(low: int, high: int = MOST) -> Check:
    """A whole number from `low` to `high`."""
    return lambda name, value: check_integer(name, value, low=low, high=high)


def choice(*accepted: str | None) -> Check:
    """One of `accepted`."""
    return lambda name, value: check_choice(name, value, accepted)


def pair(end: Check) -> Check:
    """Two numbers (low, high), each accepted by `end`."""

    def check(name: str, value: Any) -> tuple[float, float]:
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise UsageError(f"{name} must be a pair (low, high); got {value!r}")
        low, high = (end(f"{name} {value!r}: each end", part) for part in value)
        if low > high:
            raise UsageError(f"{name} must be (low, high), low first; got {value!r}")
        return low, high

    return check


def named_layer(name: str, value: Any) -> str:
    """The name of a layer; whether the network has it, `check_freeze` says."""
    if not isinstance(value, str) or not value.strip():
        raise UsageError(
            f"{name} must be 'body' (all but the classifier) or the name of a layer; "
            f"got {value!r}"
        )
    return value


def optional(check: Check) -> Check:
    """What `check` accepts, or None, which switches it off."""

    def checked(name: str, value: Any) -> Any:
        if value is None:
            return None
        try:
            return check(name, value)
        except UsageError as error:
            raise UsageError(f"{error}; or None, to switch it off") from None

    return checked


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Every setting of a training run that is not the network, data or machine.

    Values that are None switch the thing off. Times are in epochs of the data. A
    recipe is checked whenever it is made, also by `dataclasses.replace`.

    Raises:
        UsageError: a value that cannot be, or two that exclude each other, by name.

    Example:
        for field in dataclasses.fields(km.Recipe):
            print(field.name, field.metadata.get("help"))
    """

    name: str
    summary: str

    # Optimizer
    optimizer: str = option(
        choice("rmsprop", "sgd"), "rmsprop (TensorFlow 1's, km.RMSprop) or sgd"
    )
    learning_rate: float = option(
        number(0, above=True), "learning rate of one replica; see scale_learning_rate"
    )
    scale_learning_rate: bool = option(
        check_flag, "multiply the learning rate by the number of replicas"
    )
    asynchronous_workers: int = option(
        integer(1), "the rate is divided where there are more, in proportion"
    )
    decay_rate: float = option(
        number(0, 1), "factor of the learning rate every decay_epochs"
    )
    decay_epochs: float = option(
        number(0, above=True), "epochs in which the rate falls by decay_rate"
    )
    staircase: bool = option(check_flag, "the rate falls in steps, not continuously")
    warmup_epochs: float = option(number(0), "epochs of linear warm-up from rate 0")
    rmsprop_decay: float = option(
        number(0, 1, below=True), "decay of RMSProp's mean square; ignored by sgd"
    )
    momentum: float = option(number(0, 1, below=True), "momentum of rmsprop or sgd")
    epsilon: float = option(number(0), "inside RMSProp's square root; ignored by sgd")
    initial_accumulator: float = option(
        number(0), "where RMSProp's mean square starts; ignored by sgd"
    )

    # Regularisation
    weight_decay: float = option(
        number(0), "w in w / 2 * sum(kernel ** 2), part of the loss"
    )
    weight_decay_scope: str = option(
        choice("kernels", "all"), "kernels (not depthwise, bias or norm) or all"
    )
    label_smoothing: float = option(
        number(0, 1, below=True), "share of a label that is spread over all classes"
    )
    background_class: bool = option(check_flag, "class 0 means none of the classes")
    dropout: float = option(
        number(0, 1, below=True), "share of features dropped before the classifier"
    )
    ema_decay: float | None = option(
        optional(number(0, 1, above=True, below=True)),
        "moving average of all variables; None: no average",
    )

    # Network constants that belong to training
    batch_norm_momentum: float = option(
        number(0, 1, below=True), "share of the moving statistics kept at each step"
    )
    synchronize_batch_norm: bool = option(
        check_flag, "batch statistics of all replicas together, not of each its own"
    )
    kernel_stddev: float = option(
        number(0, 1, above=True),
        "standard deviation of kernels at the start (truncated normal)",
    )

    # Run
    batch_size: int = option(integer(1), "images of one replica in a step")
    epochs: int = option(integer(1), "passes over the training images")
    early_stopping_patience: int | None = option(
        optional(integer(1)),
        "epochs without a better validation loss; None: no early stop",
    )

    # Preprocessing; images end in [-1, 1]
    crop_area: tuple[float, float] | None = option(
        optional(pair(number(0, 1, above=True))),
        "share of the image that a crop may take (low, high); None: no crops",
    )
    crop_aspect: tuple[float, float] = option(
        pair(number(0, above=True)),
        "width / height of a crop (low, high), as multiples of the network's",
    )
    crop_min_covered: float = option(
        number(0, 1), "share of the whole image that a crop must cover"
    )
    flip: bool = option(check_flag, "mirror half of the training images")
    exif_orientation: bool = option(
        check_flag, "turn images upright as their EXIF orientation says"
    )
    color: str | None = option(
        choice(None, "fast", "full"),
        "fast: vary brightness, saturation; full: hue, contrast too; None: neither",
    )
    resize: str = option(
        choice("tf1", "half_pixel"),
        "tf1 (bilinear without half-pixel centres) or half_pixel",
    )
    eval_crop: float | None = option(
        optional(number(0, 1, above=True)),
        "central share of each side in evaluation; None: the whole image",
    )

    # Fine-tuning of weights that are there before. Neutral where a recipe of one's own,
    # or of an older version, has not got them.
    freeze: str | None = option(
        optional(named_layer),
        "body (all but the classifier), or a layer: nothing up to it is trained",
        None,
    )
    head_epochs: int = option(
        integer(0), "first so many of the epochs with the body frozen", 0
    )
    body_learning_rate: float = option(
        number(0, 1, above=True),
        "learning rate of the body, as a share of the classifier's",
        1.0,
    )
    batch_norm: str = option(
        choice("train", "frozen", "recalibrate"),
        "train, frozen (statistics stay), recalibrate (train, and anew at the end)",
        "train",
    )

    # What was run of it here, with which command.
    measured: str = dataclasses.field(default="", compare=False)
    # Field to where its value comes from; what is not there is the caller's.
    sources: Mapping[str, str] = dataclasses.field(
        default_factory=dict, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        accepted = {
            name: field.metadata["check"](name, getattr(self, name))
            for name, field in options_of(Recipe).items()
        }
        sources = dict.fromkeys(FIELDS, "[yours]") | dict(self.sources)
        for name, value in {**accepted, "sources": sources}.items():
            object.__setattr__(self, name, value)  # frozen, but not yet made
        _check_together(self)

    def replace(self, /, **overrides: Any) -> Recipe:
        """This recipe with some fields changed; their source becomes [yours].

        Raises:
            UsageError: a field that does not exist, or a value that cannot be.

        >>> from keras_mobilenets import recipes
        >>> recipes["slim_v2"].replace(epochs=10).sources["epochs"]
        '[yours]'
        """
        check_known(f"recipe {self.name!r}", overrides, FIELDS)
        if not overrides:
            return self
        sources = {**self.sources, **dict.fromkeys(overrides, "[yours]")}
        changed = {**overrides, "sources": sources, "measured": "not as changed"}
        return dataclasses.replace(self, **changed)

    def as_dict(self) -> dict[str, Any]:
        """Field to value, ready for JSON."""
        return {field: getattr(self, field) for field in FIELDS}


FIELDS = tuple(options_of(Recipe))
# What a recipe has that says nothing of a field.
NEUTRAL = {
    name: field.default
    for name, field in options_of(Recipe).items()
    if field.default is not NOT_GIVEN
}


def _check_together(recipe: Recipe) -> None:
    """Refuse values that exclude each other."""
    if recipe.head_epochs > recipe.epochs:
        raise UsageError(
            f"head_epochs must be at most the {recipe.epochs} epochs, which they are "
            f"part of; got {recipe.head_epochs}: lower it, or raise epochs"
        )
    if recipe.freeze == "body" and recipe.batch_norm == "recalibrate":
        raise UsageError(
            "batch_norm='recalibrate' has nothing to compute anew where freeze='body' "
            "keeps every layer's statistics: give batch_norm='frozen', or freeze less"
        )
    if recipe.crop_area is not None and recipe.crop_min_covered > recipe.crop_area[1]:
        raise UsageError(
            f"crop_min_covered must be at most crop_area's upper end "
            f"{recipe.crop_area[1]:g}, or no crop fits; got {recipe.crop_min_covered!r}"
        )
    divisor = _single(recipe.epsilon) + _single(recipe.initial_accumulator)
    if recipe.optimizer == "rmsprop" and divisor == 0:
        raise UsageError(
            "epsilon must be above 0 where initial_accumulator is 0 (the first update "
            f"would divide by zero, in float32); got epsilon={recipe.epsilon!r}"
        )


def check_freeze(freeze: str | None, layers: Sequence[str], network: str) -> None:
    """Refuse a recipe's `freeze` that is none of a network's layers.

    `layers` are those before its classifier.

    Raises:
        UsageError: with the nearest that there is.
    """
    if freeze is None or freeze == "body" or freeze in layers:
        return
    raise UsageError(
        f"freeze must be None, 'body' or a layer of {network} before its classifier, "
        f"from {layers[0]!r} to {layers[-1]!r}; got {freeze!r}"
        f"{suggest(freeze, layers)}"
    )


def difference(first: Recipe, second: Recipe) -> list[tuple[str, Any, Any, str, str]]:
    """Where two recipes differ: (field, value, value, source, source) rows."""
    return [
        (
            field,
            getattr(first, field),
            getattr(second, field),
            first.sources[field],
            second.sources[field],
        )
        for field in FIELDS
        if getattr(first, field) != getattr(second, field)
    ]
