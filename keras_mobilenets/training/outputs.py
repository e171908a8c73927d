"""What a Keras model ends in: its classifier, and whether that gives logits.

`compile` takes any classification model, also nested ones (a `Sequential` of
augmentation and a network), so it follows the output back to the layers that made it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
from keras import activations, layers

from keras_mobilenets.errors import UsageError

# Layers that give logits for logits, and probabilities for probabilities.
NEUTRAL = (
    layers.Dropout,
    layers.Flatten,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.Identity,
    layers.Reshape,
)
# What turns logits into the probabilities that a cross entropy takes.
SQUASHING = {"softmax": activations.softmax, "sigmoid": activations.sigmoid}
# Layers whose `kernel` is that of a convolution or a classifier.
KERNELS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
    layers.Dense,
    layers.EinsumDense,
)
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model and of the models in it."""
    return list(model._flatten_layers(include_self=False))


def backwards(model: keras.Model) -> Iterator[Any]:
    """The operations behind the output, last first, while each has one input.

    Nested models are entered.
    """
    tensor, outside = model.outputs[0], []
    while True:
        operation, node, index = tensor._keras_history
        inputs = operation._inbound_nodes[node].input_tensors
        if isinstance(operation, keras.Model) and getattr(operation, "outputs", None):
            outside.append(inputs)
            tensor = operation.outputs[index]
            continue
        if isinstance(operation, layers.InputLayer):
            if not outside:
                return
            inputs = outside.pop()
        else:
            yield operation
        if len(inputs) != 1:
            return
        tensor = inputs[0]


def count_classes(model: keras.Model, least: int = 2) -> int:
    """How many classes a model tells apart, `least` or more.

    Raises:
        UsageError: it is not built, or does not end in one vector of classes.
    """
    outputs = getattr(model, "outputs", None)
    if not outputs:
        raise UsageError(
            "model must be a built functional or Sequential keras.Model; got "
            f"{model!r}: begin a Sequential with keras.Input"
        )
    if len(outputs) != 1:
        raise UsageError(
            f"model must have one output; got {len(outputs)}: take one of them, "
            "keras.Model(model.input, model.outputs[0]), or use model.compile"
        )
    shape = tuple(outputs[0].shape)
    if len(shape) != 2 or shape[1] is None:
        raise UsageError(
            "model must end in one vector of classes; got outputs of shape "
            f"{shape}: build it with include_top=True"
        )
    if shape[1] < least:
        raise UsageError(
            "model must have an output for each of at least two classes; got one: "
            "build it with classes=2, or give loss='binary_crossentropy'"
        )
    return shape[1]


def ends_in_logits(model: keras.Model, squashing: str = "softmax") -> bool:
    """Whether a classifier's output is logits (True) or probabilities (False).

    These are what `squashing` makes of logits.

    Raises:
        UsageError: it cannot be told.
    """
    softmax = squashing == "softmax"
    logits = {activations.linear: True, SQUASHING[squashing]: False}
    if softmax:
        logits[activations.log_softmax] = True
    for layer in backwards(model):
        if isinstance(layer, NEUTRAL):
            continue
        if softmax and isinstance(layer, layers.Softmax):
            if layer.axis in (-1, len(layer.output.shape) - 1):
                return False
            break
        activation = getattr(layer, "activation", None)
        weighted = isinstance(layer, (*KERNELS, *SEPARABLE))
        if isinstance(layer, layers.Activation) and activation is activations.linear:
            continue
        if activation in logits and (weighted or isinstance(layer, layers.Activation)):
            return logits[activation]
        break
    else:
        layer = model.layers[0]
    activation = getattr(getattr(layer, "activation", None), "__name__", "")
    raise UsageError(
        f"model must end in {squashing} or in logits for this cross entropy; it "
        f"cannot be told what {type(layer).__name__} {layer.name!r} {activation} "
        "gives: pass from_logits=True or from_logits=False, or build the model with "
        f'classifier_activation="{squashing}" or None'
    )


def classifier_dropouts(model: keras.Model) -> list[keras.layers.Dropout]:
    """The `Dropout` layers between the classifier and the layer with weights before.

    Not those further down, and none with a `noise_shape`: EfficientNet's drop whole
    blocks, at rates of their own.
    """
    found: list[keras.layers.Dropout] = []
    weighted = 0
    for layer in backwards(model):
        weighted += bool(getattr(layer, "weights", ()))
        if weighted == 2:
            break
        plain = isinstance(layer, layers.Dropout) and layer.noise_shape is None
        if weighted == 1 and plain:
            found.append(layer)
    return found
