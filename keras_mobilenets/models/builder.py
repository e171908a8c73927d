"""`build`: a functional Keras model from the plan.

Follows slim's networks (`research/slim/nets`): SAME padding at even and odd
sizes, no bias before a batch norm, ReLU6, batch norm epsilon 1e-3, truncated
normal kernels. Only plain Keras layers, so a saved model loads anywhere.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import keras

from keras_mobilenets.architecture.arguments import (
    VARIANTS,
    check_choice,
    check_known,
    check_name,
    check_number,
)
from keras_mobilenets.architecture.plan import ARGUMENTS, IMAGE, Layer, make_plan
from keras_mobilenets.architecture.shapes import Resolution, sides
from keras_mobilenets.architecture.tables import NETWORKS
from keras_mobilenets.errors import UsageError
from keras_mobilenets.models.weights import load_weights
from keras_mobilenets.weight_files import find_weights

BATCH_NORM_EPSILON = 1e-3  # slim, both papers
KERNEL_STDDEV = 0.09  # slim, both papers
CONSTANTS = ("batch_norm_momentum", "batch_norm_epsilon", "kernel_stddev")
DATA_FORMAT = "channels_last"  # of images here, whatever keras.json says
ACTIVATIONS = (None, "softmax", "sigmoid")


def _take_constants(name: str, variant: dict[str, Any]) -> dict[str, float]:
    """Take the training constants out of `variant`; slim's where not given."""
    defaults = {
        "batch_norm_momentum": NETWORKS[name].batch_norm_momentum,
        "batch_norm_epsilon": BATCH_NORM_EPSILON,
        "kernel_stddev": KERNEL_STDDEV,
    }
    constants = {
        argument: check_number(argument, variant.pop(argument, default), low=0, high=1)
        for argument, default in defaults.items()
    }
    if constants["batch_norm_momentum"] >= 1:
        raise UsageError(
            "batch_norm_momentum must be below 1 (slim: 0.9997 for V1, 0.997 for V2); "
            f"got {constants['batch_norm_momentum']!r}"
        )
    return constants


def _check_dropout(name: str, dropout: float | None) -> float:
    if dropout is None:
        return NETWORKS[name].dropout
    dropout = check_number("dropout", dropout, low=0, fix="0 leaves the layer out")
    if dropout >= 1:
        raise UsageError(f"dropout is the share dropped, below 1; got {dropout!r}")
    return dropout


def _output_dtype() -> str:
    """float32 under mixed precision too: a loss in half precision loses digits."""
    return keras.config.dtype_policy().variable_dtype


def _makers(kernel_stddev: float, dropout: float) -> dict[str, Callable]:
    """Layer kind -> a function (layer of the plan, input tensors) -> tensor."""

    def kernel_initializer() -> keras.Initializer:
        return keras.initializers.TruncatedNormal(stddev=kernel_stddev)

    def spatial(layer: Layer) -> dict[str, Any]:
        return {
            "kernel_size": layer.kernel,
            "strides": layer.stride,
            "dilation_rate": layer.dilation,
            "padding": "same" if layer.padding == "same" else "valid",
            "data_format": DATA_FORMAT,
            "use_bias": False,
            "name": layer.name,
        }

    def padded(layer: Layer, x: keras.KerasTensor) -> keras.KerasTensor:
        if layer.padding == "same":
            return x
        return keras.layers.ZeroPadding2D(
            layer.kernel // 2, data_format=DATA_FORMAT, name=f"{layer.name}_pad"
        )(x)

    def conv(layer: Layer, x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.layers.Conv2D(
            layer.channels_out,
            kernel_initializer=kernel_initializer(),
            **spatial(layer),
        )(padded(layer, x))

    def depthwise(layer: Layer, x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.layers.DepthwiseConv2D(
            depthwise_initializer=kernel_initializer(), **spatial(layer)
        )(padded(layer, x))

    def dense(layer: Layer, x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.layers.Dense(
            layer.channels_out,
            kernel_initializer=kernel_initializer(),
            dtype=_output_dtype(),
            name=layer.name,
        )(x)

    return {
        "conv": conv,
        "depthwise": depthwise,
        "dense": dense,
        "add": lambda layer, *xs: keras.layers.Add(name=layer.name)(xs),
        "avg_pool": lambda layer, x: keras.layers.GlobalAveragePooling2D(
            data_format=DATA_FORMAT, name=layer.name
        )(x),
        "max_pool": lambda layer, x: keras.layers.GlobalMaxPooling2D(
            data_format=DATA_FORMAT, name=layer.name
        )(x),
        "dropout": lambda layer, x: (
            keras.layers.Dropout(dropout, name=layer.name)(x) if dropout else x
        ),
    }


def build(
    name: str = "mobilenet_v2",
    *,
    alpha: float = 1.0,
    rho: float | None = None,
    resolution: Resolution | None = None,
    channels: int = 3,
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    dropout: float | None = None,
    **variant: Any,
) -> keras.Model:
    """MobileNetV1 or V2 exactly as its authors' code builds it.

    The model maps float images [batch, height, width, channels], scaled to
    [-1, 1], to class probabilities [batch, classes].

    Args:
        name: "mobilenet_v1" or "mobilenet_v2".
        alpha: width multiplier, above 0. V1 truncates the widths, V2 rounds them
            to multiples of 8 and keeps the last convolution at 1280 below 1.
        rho: resolution multiplier of 224 (0.857 is 192 pixels).
        resolution: the same in pixels, at least 32; or (height, width). Give one or
            neither (224).
        channels: of the images: 3 (RGB), 1 (grey) or 4 (RGB and alpha).
        include_top: False ends with the last feature map.
        weights: None, "imagenet" (keras.applications' weights, downloaded), or a
            path: a `.keras`, `.h5`, `.safetensors` or `.tflite` file, the directory
            of a run, or the prefix of one of the authors' checkpoints. The classifier
            stays new where it is for another number of classes, with a warning.
        pooling: for include_top=False: None, "avg" or "max".
        classes: number of classes, at least 1.
        classifier_activation: "softmax", "sigmoid", or None for logits.
        dropout: rate before the classifier; None is slim's (V1 0.001, V2 0.2),
            0 leaves the layer out. A recipe sets the rate when compiling.
        **variant: the papers' own variations. V1: `shallow`, `separable=False`
            (full convolutions). V2: `linear_bottleneck=False`, `shortcut`
            ("bottleneck", "expansion", "none"), `expansion`. Both:
            `output_stride` (dilation keeps the map larger), `activation`
            ("relu6", "relu"), `padding` ("same"; "symmetric" is PyTorch's),
            `batch_norm_momentum`, `batch_norm_epsilon`, `kernel_stddev`.

    Layers are named `stem`, `block_K_expand|depthwise|project|add` (K from 1),
    `top`, `logits`, with `_bn` and `_relu` behind them.

    Raises:
        ValueError: an argument is unknown or impossible; the message says what
            is accepted.

    Source: arXiv:1704.04861 Table 1, arXiv:1801.04381 Table 2, slim's
    `mobilenet_v1.py` and `mobilenet/mobilenet_v2.py`.

    >>> build("mobilenet_v1", alpha=0.25, resolution=128).count_params()
    475544
    """
    name = check_name(name)
    variants = dict.fromkeys(sum(VARIANTS.values(), ()))
    check_known("build()", variant, (*ARGUMENTS, *variants, *CONSTANTS))
    constants = _take_constants(name, variant)
    plan = make_plan(
        name,
        alpha=alpha,
        rho=rho,
        resolution=resolution,
        channels=channels,
        include_top=include_top,
        pooling=pooling,
        classes=classes,
        **variant,
    )
    check_choice("classifier_activation", classifier_activation, ACTIVATIONS)
    if weights is not None:
        find_weights(weights)  # before anything is built
    make = _makers(constants["kernel_stddev"], _check_dropout(name, dropout))

    size = plan[0].size_in
    tensors = {IMAGE: keras.Input((*sides(size), plan[0].channels_in), name=IMAGE)}
    for layer in plan:
        x = make[layer.kind](layer, *(tensors[source] for source in layer.inputs))
        if layer.batch_norm:
            x = keras.layers.BatchNormalization(
                axis=-1,
                momentum=constants["batch_norm_momentum"],
                epsilon=constants["batch_norm_epsilon"],
                name=f"{layer.name}_bn",
            )(x)
        if layer.activation:
            x = keras.layers.ReLU(
                max_value=6.0 if layer.activation == "relu6" else None,
                name=f"{layer.name}_relu",
            )(x)
        tensors[layer.name] = x
    if include_top and classifier_activation:
        x = keras.layers.Activation(
            classifier_activation, dtype=_output_dtype(), name="predictions"
        )(x)
    model = keras.Model(tensors[IMAGE], x, name=name)
    if weights is not None:
        loaded = load_weights(model, weights)
        if loaded.new or loaded.adapted:
            # Where all was taken as it is there is nothing to say. A warning, and not a
            # line on standard output, which belongs to whoever called.
            warnings.warn(str(loaded), stacklevel=2)
    return model
