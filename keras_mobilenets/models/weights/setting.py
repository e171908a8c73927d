"""Weights are compared with the network, and then set: all of them, or none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_mobilenets.errors import UsageError
from keras_mobilenets.models.stem import fit_stem
from keras_mobilenets.models.weights.stored import (
    CLASSIFIER,
    TITLES,
    Layers,
    Network,
    Stored,
    identify,
)
from keras_mobilenets.models.weights.traits import ENDS, traits_of

Variables = dict[str, dict[str, keras.Variable]]  # layer -> variable -> itself


class Loaded(NamedTuple):
    """What was loaded into a network, and what of it is new."""

    file: str
    kind: str
    network: str  # of the file, as the rest
    alpha: float | None
    classes: int | None
    layers: int  # loaded
    new: tuple[str, ...]  # layers that stay as they were initialised
    adapted: tuple[str, ...]  # what was changed or left out, in words

    def __str__(self) -> str:
        theirs = Network(self.network, self.alpha, self.classes)
        new = f"new and untrained: {', '.join(self.new)}" if self.new else "none is new"
        return "; ".join(
            [
                f"weights from {self.file} ({self.kind}: {theirs}): {self.layers} "
                f"layers loaded, {new}",
                *self.adapted,
            ]
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a report."""
        values = self._asdict()
        return values | {"new": list(self.new), "adapted": list(self.adapted)}


def set_stored(model: keras.Model, stored: Stored, file: str) -> Loaded:
    """Set what a file holds on a model of `build`, all or nothing.

    All but the classifier must fit; that is left as it is where the numbers of classes
    differ.

    Raises:
        UsageError: it belongs to another network; the message says what it is.
    """
    try:
        values, loaded = _fit(model, stored, file)
    except UsageError as error:
        raise UsageError(
            f"weights file {file!r} does not fit {model.name}: {error}"
        ) from None
    for variable, value in values:
        variable.assign(value)
    return loaded


def _fit(
    model: keras.Model, stored: Stored, file: str
) -> tuple[list[tuple[keras.Variable, np.ndarray]], Loaded]:
    ours = variables_of(model)
    here, there = identify(ours), identify(stored.layers)
    if here is None:
        raise UsageError("model must be one of build()")
    if there is None:
        raise UsageError("neither MobileNetV1 nor MobileNetV2 is in it")
    traits = traits_of(model.get_config()["layers"])
    theirs = _unfold(stored.layers, ours, traits["batch_norm_epsilon"])
    theirs, adapted = _fit_classifier(theirs, there, here, stored.background)
    if CLASSIFIER in theirs and (note := _other_end(stored.traits, traits)):
        theirs = {k: values for k, values in theirs.items() if k != CLASSIFIER}
        adapted += [note]
    if "kernel" in theirs["stem"]:
        channels = int(ours["stem"]["kernel"].shape[2])
        stem, notes = fit_stem(theirs["stem"]["kernel"], channels)
        theirs["stem"] = theirs["stem"] | {"kernel": stem}
        adapted += notes
    new = [] if CLASSIFIER in theirs or CLASSIFIER not in ours else [CLASSIFIER]
    _check_names(theirs, [name for name in ours if name not in new], there, here)
    values = []
    for layer, arrays in theirs.items():
        if more := [name for name in arrays if name not in ours[layer]]:
            raise UsageError(f"it has a {layer}/{more[0]}, and the network here not")
        for name, variable in ours[layer].items():
            if name not in arrays:
                raise UsageError(f"it has no {layer}/{name}")
            if np.asarray(arrays[name]).dtype.kind not in "fO":  # O: found below
                kind = np.asarray(arrays[name]).dtype
                raise UsageError(f"its {layer}/{name} is of {kind}, not real numbers")
            value = _fit_shape(arrays[name], variable.shape)
            if value is None:
                raise _mismatch(there, here, f"{layer}/{name}", arrays[name], variable)
            values.append((variable, check_finite(value, f"{layer}/{name}")))
    check_traits(stored.traits, traits)
    if stored.unused:
        adapted.append(f"left out of the file: {_some(stored.unused)}")
    return values, Loaded(
        file,
        stored.kind,
        there.name,
        there.alpha,
        there.classes,
        len(theirs),
        tuple(new),
        (*stored.notes, *adapted),
    )


def variables_of(model: keras.Model) -> Variables:
    """The variables of a model by the names of its layers, and their own."""
    return {
        layer.name: {variable.name: variable for variable in layer.weights}
        for layer in model.layers
        if layer.weights
    }


def _fit_classifier(
    theirs: Layers, there: Network, here: Network, background: bool
) -> tuple[Layers, list[str]]:
    """Without the classifier where it is for other classes, or not asked for."""
    if there.classes is None or there.classes == here.classes:
        return theirs, []
    if background and here.classes == there.classes - 1:
        values = {k: v[..., 1:] for k, v in theirs[CLASSIFIER].items()}
        return theirs | {CLASSIFIER: values}, ["class 0, the background, was dropped"]
    rest = {name: values for name, values in theirs.items() if name != CLASSIFIER}
    if here.classes is None:
        return rest, []
    return rest, [f"its classifier is of {there.classes} classes, not {here.classes}"]


def _other_end(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str | None:
    """Why a classifier of as many classes is of no use, if it is of none.

    What softmax makes of its outputs, one class of all, says nothing of each label by
    itself, nor the reverse. Networks that end in logits can be of either.
    """
    ends = [theirs.get(ENDS, "softmax") if theirs else None, ours.get(ENDS)]
    if None in ends or ends[0] == ends[1]:
        return None
    return f"its classifier is for {ends[0]}, not {ends[1]}"


def _unfold(theirs: Layers, ours: Variables, epsilon: float) -> Layers:
    """Batch norm in which only the bias is left, where it was folded in.

    (x - 0) * 1 / sqrt((1 - epsilon) + epsilon) + bias: the same outputs.
    """
    unfolded: Layers = {}
    for name, values in theirs.items():
        norm = f"{name}_bn"
        if "bias" not in values or norm not in ours or norm in theirs:
            unfolded[name] = values
            continue
        ones = np.ones_like(values["bias"])
        unfolded[name] = {k: v for k, v in values.items() if k != "bias"}
        unfolded[norm] = {
            "gamma": ones,
            "beta": values["bias"],
            "moving_mean": 0 * ones,
            "moving_variance": ones * np.float32(1 - epsilon),
        }
    return unfolded


def _check_names(
    theirs: Iterable[str], ours: Iterable[str], there: Network, here: Network
) -> None:
    """All layers are on both sides, but a classifier that is new."""
    missing = [name for name in ours if name not in theirs]
    more = [name for name in theirs if name not in ours]
    if not missing and not more:
        return
    if there.name != here.name:
        asked = TITLES[here.name]
    else:
        asked = (
            f"one with {_some(missing)}" if missing else f"one without {_some(more)}"
        )
    raise UsageError(f"it holds {there}; asked for {asked}")


def _mismatch(
    there: Network, here: Network, path: str, value: np.ndarray, variable: Any
) -> UsageError:
    asked = f"shape {tuple(variable.shape)} for {path}, which has {value.shape}"
    if there.alpha != here.alpha and here.alpha is not None:
        asked = f"alpha {here.alpha:g} ({asked})"
    return UsageError(f"it holds {there}; asked for {asked}")


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(names[:3])
    return listed if len(names) <= 3 else f"{listed} and {len(names) - 3} more"


def check_traits(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """What the weights do not show is as in the network that was trained."""
    different = {
        name: value
        for name, value in theirs.items()
        if name in ours
        and name != ENDS
        and not (
            math.isclose(value, ours[name], rel_tol=1e-6)
            if isinstance(value, float)
            else value == ours[name]
        )
    }
    if different:
        wanted = ", ".join(f"{name}={value!r}" for name, value in different.items())
        has = ", ".join(f"{name}={ours[name]!r}" for name in different)
        raise UsageError(
            f"it was trained with {wanted}, and the network here has {has}: outputs "
            f"would be others without a sign. Build it with {wanted}"
        )


def _fit_shape(value: np.ndarray, shape: Sequence[int]) -> np.ndarray | None:
    """`value` in the shape of a variable, or None: a 1x1 classifier becomes a Dense."""
    value = np.asarray(value)
    if value.shape == (1, 1, *shape):
        value = value.reshape(shape)
    return value if value.shape == tuple(shape) else None


def check_finite(value: np.ndarray, path: str) -> np.ndarray:
    """`value`, if it is finite numbers."""
    try:
        finite = np.isfinite(value.astype("float64")).all()
    except (TypeError, ValueError):
        finite = False
    if not finite:
        raise UsageError(
            f"weights for {path} must be finite numbers; got NaN, infinity or no "
            "numbers at all: the run that made them diverged, or the file is damaged"
        )
    return value


def copy_weights(model: keras.Model, weights: Sequence[np.ndarray]) -> None:
    """Set a weight list in `get_weights()` order on `model`, all or nothing.

    Takes lists of this package and of keras.applications; V1's 1x1 convolution
    classifier [1, 1, C, K] there becomes the Dense kernel [C, K] here.

    Raises:
        UsageError: another number of tensors, another shape, or values that are not
            finite numbers; names the first.
    """
    if not isinstance(model, keras.Model):
        raise UsageError(f"model must be a keras.Model; got {model!r}")
    if not isinstance(weights, (list, tuple)):
        raise UsageError(
            f"weights must be a list of arrays, as get_weights() gives; got {weights!r}"
        )
    if len(weights) != len(model.weights):
        raise UsageError(
            f"weights must hold the {len(model.weights)} tensors of {model.name}; "
            f"got {len(weights)}: they belong to another architecture"
        )
    fitted = []
    for variable, given in zip(model.weights, weights, strict=True):
        value = _fit_shape(given, variable.shape)
        if value is None:
            raise UsageError(
                f"weights for {variable.path} must have shape "
                f"{tuple(variable.shape)}; got {np.shape(given)}: they belong to "
                "another architecture, alpha or number of classes"
            )
        fitted.append(check_finite(value, variable.path))
    model.set_weights(fitted)
