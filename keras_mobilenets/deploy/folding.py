"""`fuse`: batch norm folded into the convolutions before it, for inference.

At inference a batch norm is a factor and a summand a channel, and so are a kernel and
a bias: two layers become one (Jacob et al. 2017, arXiv:1712.05877, section 3.2). The
graph of the model is walked, whatever network it is; what is put together is computed
in float64.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np

from keras_mobilenets.architecture.arguments import shown
from keras_mobilenets.errors import UsageError

FOLDABLE = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
# What passes its input on at inference, or is folded.
LEFT_OUT = (
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.AlphaDropout,
    keras.layers.ActivityRegularization,
)
DTYPE = "float32"


def fuse(model: keras.Model) -> keras.Model:
    """The same network for inference: batch norm in the convolutions, dropout gone.

    A new model in float32 (also of one under mixed precision), not compiled, of plain
    Keras layers with the names that they had: its file loads where this package is
    not. One without a batch norm becomes a copy. The weights are taken as they are: for
    the moving average of a recipe, fuse inside `km.averaged_weights(model)`.

    Args:
        model: of `km.build`, `km.train`, keras.applications, or any functional or
            sequential Keras model whose batch norms each follow a Conv2D, a
            DepthwiseConv2D or a Dense that nothing else reads.

    Raises:
        UsageError: a batch norm that cannot be folded, a layer that is not Keras' own,
            a model inside the model, quantised layers, or weights that are no numbers.

    Source: arXiv:1712.05877, section 3.2.

    >>> fuse(build("mobilenet_v2")).count_params()
    3487816
    """
    return fold(model)


def fold(model: keras.Model, besides: tuple[type, ...] = ()) -> keras.Model:
    """What `fuse` does, of a model that may have these layers besides Keras' own."""
    functional = as_functional(model, besides)
    folded = _find_folds(functional)
    made: dict[int, Any] = {}

    def clone(operation: Any) -> Any:
        if not isinstance(operation, keras.layers.Layer):
            return operation  # of keras.ops: no weights
        if isinstance(operation, LEFT_OUT):
            return operation
        if id(operation) not in made:
            config = {**operation.get_config(), "dtype": DTYPE}
            if id(operation) in folded:
                config["use_bias"] = True
            made[id(operation)] = type(operation).from_config(config)
        return made[id(operation)]

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(operation, LEFT_OUT):
            return args[0]
        return operation(*args, **kwargs)

    fused = keras.models.clone_model(
        functional, clone_function=clone, call_function=call
    )
    for layer in functional.layers:
        if id(layer) not in made:
            continue
        if id(layer) in folded:
            weights = _fold(layer, folded[id(layer)])
        else:
            weights = [np.asarray(value) for value in layer.get_weights()]
        if not all(np.isfinite(value).all() for value in weights):
            raise UsageError(
                f"model must have weights that are numbers; those of its "
                f"{layer.name!r} are not, or are too large for {DTYPE}"
            )
        made[id(layer)].set_weights(weights)
    return fused


def as_functional(model: Any, besides: tuple[type, ...] = ()) -> keras.Model:
    """The graph of the model, of layers that load anywhere; not compiled."""
    if not isinstance(model, keras.Model):
        raise UsageError(
            "model must be a Keras model, such as km.build or "
            f"keras.saving.load_model gives; got {shown(model)}"
        )
    try:
        if isinstance(model, keras.Sequential):
            ends = model.inputs[0], model.outputs[0]
        else:
            ends = model.input, model.output
        functional = keras.Model(*ends, name=model.name)
    except (AttributeError, ValueError, TypeError) as error:
        raise UsageError(
            "model must be functional or sequential, and built, so that its graph is "
            f"known; {model.name!r} is a {type(model).__name__} without one"
        ) from error
    for operation in functional.operations:
        if not isinstance(operation, besides):
            _check_plain(operation)
    return functional


def _check_plain(operation: Any) -> None:
    name, kind = operation.name, type(operation).__name__
    if isinstance(operation, keras.Model):
        raise UsageError(
            f"model must hold layers only; its {name!r} is a model in the model: call "
            "that on the outer model's input while it is built, or fuse it alone"
        )
    functions = (type(operation), getattr(operation, "activation", None))
    modules = {getattr(f, "__module__", "keras") for f in functions if f is not None}
    foreign = any(module.split(".")[0] != "keras" for module in modules)
    if foreign or isinstance(operation, keras.layers.Lambda):
        raise UsageError(
            f"model must be of Keras' own layers, which load anywhere; its {name!r} is "
            f"a {kind} with code of its own"
        )
    if getattr(operation, "quantization_mode", None):
        raise UsageError(
            f"model must not be quantised by Keras; its {name!r} is in "
            f"{operation.quantization_mode}: take the model as it was before"
        )


def _find_folds(model: keras.Model) -> dict[int, keras.layers.BatchNormalization]:
    """For the id of each layer with a batch norm behind it, that batch norm.

    Raises:
        UsageError: a batch norm that cannot be folded.
    """
    # Functional models tell their graph to nobody but their own class.
    nodes = [
        node
        for at_depth in model._nodes_by_depth.values()
        for node in at_depth
        if not node.is_input
    ]
    read = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    read.update(id(tensor) for tensor in model.outputs)
    calls = Counter(id(node.operation) for node in nodes)
    sources = {id(out): node.operation for node in nodes for out in node.output_tensors}
    found = {}
    for node in nodes:
        norm = node.operation
        if not isinstance(norm, keras.layers.BatchNormalization):
            continue
        (tensor,) = node.input_tensors
        source: Any = sources.get(id(tensor))
        if reason := _obstacle(norm, source):
            pass
        elif calls[id(source)] > 1 or calls[id(norm)] > 1:
            reason = "one of the two is used in several places"
        elif read[id(tensor)] > 1:
            reason = f"something else reads the output of {source.name!r} too"
        if reason:
            raise UsageError(
                "model must have each batch norm behind a Conv2D, a DepthwiseConv2D "
                f"or a Dense that nothing else reads; its {norm.name!r} cannot be "
                f"folded: {reason}"
            )
        found[id(source)] = norm
    return found


def _obstacle(norm: keras.layers.BatchNormalization, source: Any) -> str | None:
    """Why this batch norm is no factor and summand for the channels of its source."""
    if type(source) not in FOLDABLE:
        what = "the input" if source is None else f"a {type(source).__name__}"
        return f"it follows {what}"
    if source.activation is not keras.activations.linear:
        return f"{source.name!r} has an activation, which lies between them"
    rank = len(source.output.shape)
    first = getattr(source, "data_format", None) == "channels_first"
    if norm.axis % rank != (1 if first else rank - 1):
        return f"it normalises axis {norm.axis}, not the channels"
    return None


def _fold(layer: Any, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """Kernel and bias that do what the layer and its batch norm do."""

    def value(variable: Any, otherwise: float) -> Any:
        return otherwise if variable is None else np.array(variable, "float64")

    # An overflow is answered by the caller, who knows the name of the layer.
    with np.errstate(all="ignore"):
        variance = value(norm.moving_variance, 1) + norm.epsilon
        factor = value(norm.gamma, 1) / np.sqrt(variance)
        kernel = value(layer.kernel, 0)
        bias = value(layer.bias if layer.use_bias else None, 0)
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        scale = factor.reshape(kernel.shape[-2:]) if depthwise else factor
        shift = value(norm.beta, 0) + (bias - value(norm.moving_mean, 0)) * factor
        return [(kernel * scale).astype(DTYPE), shift.astype(DTYPE)]
