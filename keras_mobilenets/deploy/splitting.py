"""`split`: MobileNetV2 run in less memory, its bottlenecks in groups of channels.

V2 section 5: what a bottleneck does between its two 1x1 convolutions it does to each
channel alone. So it is the sum of t bottlenecks with a part of the wide channels each,
and of these only one has to be in memory at a time.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import accumulate, pairwise
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets.architecture.arguments import check_integer, shown
from keras_mobilenets.deploy.folding import as_functional
from keras_mobilenets.errors import UsageError

PROJECTION = re.compile(r"(block_\d+)_project")
NEEDED = "model must be a mobilenet_v2 of km.build, or of km.fuse"
# What may lie between the two 1x1 convolutions: each does to a channel what it does.
BETWEEN = (
    keras.layers.BatchNormalization,
    keras.layers.DepthwiseConv2D,
    keras.layers.ReLU,
    keras.layers.ZeroPadding2D,
)


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class SplitBottleneck(keras.layers.Layer):
    """A bottleneck up to its projection, one group of wide channels after another.

    Args:
        chain: class names and configs of layers, from the expansion (of a block without
            one, the depthwise convolution) to the projection.
        sizes: channels of each group.

    Each group starts when the sum of those before it is there, in a graph too, where
    TensorFlow would otherwise run them side by side and need the memory of all.
    """

    def __init__(self, chain: list[dict[str, Any]], sizes: list[int], **kwargs: Any):
        super().__init__(**kwargs)
        self.chain, self.sizes = chain, sizes
        self.expands = chain[0]["class_name"] == "Conv2D"
        self.groups = [
            keras.Sequential([_part(config, size, number, chain) for config in chain])
            for number, size in enumerate(sizes)
        ]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for size, group in zip(self.sizes, self.groups, strict=True):
            group.build(input_shape if self.expands else (*input_shape[:-1], size))

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        first = input_shape if self.expands else (*input_shape[:-1], self.sizes[0])
        return self.groups[0].compute_output_shape(first)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        total = None
        for end, size, group in zip(
            accumulate(self.sizes), self.sizes, self.groups, strict=True
        ):
            with tf.control_dependencies([] if total is None else [total]):
                x = tf.identity(inputs)
            x = group(x if self.expands else x[..., end - size : end])
            total = x if total is None else total + x
        return total

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "chain": [dict(config) for config in self.chain],
            "sizes": list(self.sizes),
        }

    def take_weights(self, layers: list[keras.layers.Layer]) -> None:
        """Those of the layers that it stands for."""
        bounds = pairwise(accumulate(self.sizes, initial=0))
        for (start, end), group in zip(bounds, self.groups, strict=True):
            for whole, part in zip(layers, group.layers, strict=True):
                values = {v.name: np.asarray(v) for v in whole.weights}
                for variable in part.weights:
                    value = values[variable.name]
                    if value.ndim == 1:
                        value = value if whole is layers[-1] else value[start:end]
                    elif whole is layers[0] and self.expands:
                        value = value[..., start:end]
                    else:  # [height, width, wide, 1], and [1, 1, wide, narrow]
                        value = value[:, :, start:end]
                    variable.assign(value)


def split(model: keras.Model, splits: int) -> keras.Model:
    """The same network in less memory: each bottleneck in `splits` groups of channels.

    A new model with the same outputs, but for the rounding of the sums; not compiled.
    It takes as much arithmetic and a little longer; `cost(..., splits=)` counts its
    memory, and the paper finds 2 to 5 splits worth their time. Of one small image the
    longer graph takes more than is saved (docs/experiments.md has measurements).

    Args:
        model: a mobilenet_v2 of `km.build`, trained, or of `km.fuse`, which is faster.
        splits: at least 1; of a block with fewer wide channels, as many as these.
            Where they cannot be divided evenly the groups differ by one channel.

    A file of it loads after `import keras_mobilenets; keras_mobilenets.split`.

    Raises:
        UsageError: `model` is no mobilenet_v2 whose bottlenecks expand and stay within
            themselves (`shortcut="expansion"` does not).

    Source: arXiv:1801.04381, section 5.

    >>> split(fuse(build("mobilenet_v2")), 4).count_params()
    3487816
    """
    splits = check_integer("splits", splits, low=1)
    if not isinstance(model, keras.Model):
        raise UsageError(f"{NEEDED}; got {shown(model)}")
    model = as_functional(model)
    chains = _find_chains(model)
    passed = {id(layer) for chain in chains.values() for layer in chain[:-1]}
    made: dict[int, SplitBottleneck] = {}

    def clone(operation: Any) -> Any:
        if id(operation) in passed or not isinstance(operation, keras.layers.Layer):
            return operation
        if id(operation) not in chains:
            return type(operation).from_config(operation.get_config())
        chain = chains[id(operation)]
        channels = operation.kernel.shape[2]
        count = min(splits, channels)
        made[id(operation)] = SplitBottleneck(
            [
                {"class_name": type(layer).__name__, "config": layer.get_config()}
                for layer in chain
            ],
            [channels // count + (i < channels % count) for i in range(count)],
            name=operation.name,
            dtype=operation.dtype_policy,
        )
        return made[id(operation)]

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if id(operation) in passed:
            return args[0]
        return operation(*args, **kwargs)

    whole = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in model.layers:
        if id(layer) in made:
            made[id(layer)].take_weights(chains[id(layer)])
        elif id(layer) not in passed and layer.weights:
            whole.get_layer(layer.name).set_weights(layer.get_weights())
    return whole


def _part(
    whole: dict[str, Any], size: int, number: int, chain: list[dict[str, Any]]
) -> keras.layers.Layer:
    """The layer for a group of so many channels; `number` counts the groups."""
    kind, config = getattr(keras.layers, whole["class_name"]), dict(whole["config"])
    if whole is chain[-1]:  # its bias is added once, with the first group
        config["use_bias"] = config["use_bias"] and number == 0
    elif kind is keras.layers.Conv2D:
        config["filters"] = size
    return kind.from_config(config)


def _find_chains(model: keras.Model) -> dict[int, list[keras.layers.Layer]]:
    """For the id of each bottleneck's projection, its layers up to this one.

    Raises:
        UsageError: it is another network, or a bottleneck cannot be split.
    """
    layers = {layer.name: layer for layer in model.layers}
    blocks = [match[1] for name in layers if (match := PROJECTION.fullmatch(name))]
    if not any(f"{block}_expand" in layers for block in blocks):
        raise UsageError(
            f"{NEEDED}, with bottlenecks that expand (V2 section 5); {model.name!r} "
            "has none"
        )
    # Functional models tell their graph to nobody but their own class.
    nodes = [node for nodes in model._nodes_by_depth.values() for node in nodes]
    sources = {id(node.operation): node for node in nodes if not node.is_input}
    read = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    chains = {}
    for block in blocks:
        chain = [layers[f"{block}_project"]]
        start = layers.get(f"{block}_expand")
        while chain[0] is not start:
            (tensor, *others) = sources[id(chain[0])].input_tensors
            before = tensor._keras_history.operation
            if start is None and not before.name.startswith(f"{block}_"):
                break  # a block that does not expand: from its depthwise convolution
            wanted = type(before) in BETWEEN or before is start
            if others or not wanted or read[id(tensor)] > 1:
                raise UsageError(
                    f"{NEEDED}, whose bottlenecks keep what is wide to themselves; in "
                    f"{model.name!r} {before.name!r} does not: build it with "
                    "shortcut='bottleneck' or 'none'"
                )
            chain.insert(0, before)
        chains[id(chain[-1])] = chain
    return chains
