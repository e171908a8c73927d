"""Which layers of a model a recipe trains: its body, its classifier, and what rests.

The classifier is the last layer with weights, the body all that lies before it. A
layer that rests is one whose `trainable` is False, as Keras has it: no gradient, no
weight decay, and batch norm that uses its moving statistics and keeps them. It is so
only while a step is traced. At all other times the model's layers are as their owner
left them, also in a file that Keras saves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras

from keras_mobilenets.errors import UsageError
from keras_mobilenets.recipe import check_freeze
from keras_mobilenets.training.outputs import backwards


def in_order(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model from its inputs on; of a model in it, that model's."""
    for layer in model.layers:
        if isinstance(layer, keras.Model) and getattr(layer, "outputs", None):
            yield from in_order(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer


def find_classifier(model: keras.Model) -> keras.layers.Layer:
    """The last layer with weights.

    Raises:
        UsageError: there is none, or several layers give the output together.
    """
    for layer in backwards(model):
        if getattr(layer, "weights", ()):
            return layer
    raise UsageError(
        "freeze, head_epochs and body_learning_rate need a model that ends in one "
        f"layer with weights, its classifier; got {model.name!r}, which does not"
    )


def body(model: keras.Model) -> list[keras.layers.Layer]:
    """All layers but the classifier and what lies behind it."""
    layers, classifier = list(in_order(model)), find_classifier(model)
    return layers[: layers.index(classifier)]


def frozen(model: keras.Model, freeze: str | None) -> list[keras.layers.Layer]:
    """The layers that a recipe's `freeze` keeps from training.

    Up to the named one, in the order of the model, and the batch norm right behind it.

    Raises:
        UsageError: the body has no such layer.
    """
    if freeze is None:
        return []
    layers = body(model)
    names = [layer.name for layer in layers]
    check_freeze(freeze, names, f"{model.name!r}")
    if freeze == "body":
        return layers
    end = names.index(freeze) + 1
    behind = layers[end : end + 1]
    if behind and isinstance(behind[0], keras.layers.BatchNormalization):
        end += 1
    return layers[:end]


class Resting:
    """`with resting:` - within the block these layers are not trainable.

    Replicas are threads that take turns in it, so what to go back to is noted once.
    """

    def __init__(self, layers: Iterable[keras.layers.Layer]):
        self._before: list[tuple[Any, bool, list[tuple[Any, bool]]]] = [
            (part, part.trainable, [(v, v.trainable) for v in part.variables])
            for layer in layers
            for part in layer._flatten_layers()
        ]

    def __enter__(self) -> None:
        for layer, _, _ in self._before:
            layer.trainable = False

    def __exit__(self, *error: object) -> None:
        for layer, trainable, variables in self._before:
            layer.trainable = trainable
            for variable, of_variable in variables:
                if variable.trainable != of_variable:
                    variable.trainable = of_variable
