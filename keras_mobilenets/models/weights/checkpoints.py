"""The authors' TensorFlow 1 checkpoints, by slim's names.

Sources: `research/slim/nets/mobilenet_v1.py` and `mobilenet/mobilenet_v2.py`;
`train_image_classifier.py` for the moving averages.
"""

from __future__ import annotations

import re

import tensorflow as tf

from keras_mobilenets.errors import UsageError
from keras_mobilenets.models.weights.stored import (
    AS_PUBLISHED,
    CLASSIFIER,
    WITH_BACKGROUND,
    Layers,
    Stored,
)

AVERAGE = "/ExponentialMovingAverage"
VARIABLES = {
    "weights": "kernel",
    "depthwise_weights": "kernel",
    "biases": "bias",
    **{name: name for name in ("gamma", "beta", "moving_mean", "moving_variance")},
}
SCOPE = re.compile(r"(?:.*/)?Mobilenet(V1|V2)/(.+?)(/BatchNorm)?/(\w+)")


def plan_name(version: str, scope: str) -> str | None:
    """The plan's name of a scope of slim; None for what is no layer of the network.

    >>> plan_name("V2", "expanded_conv_3/expand"), plan_name("V1", "Conv2d_2_pointwise")
    ('block_4_expand', 'block_2_project')
    """
    if scope == "Logits/Conv2d_1c_1x1":
        return CLASSIFIER
    if version == "V1":
        block = re.fullmatch(r"Conv2d_(\d+)_(depthwise|pointwise)", scope)
        if block:
            part = {"depthwise": "depthwise", "pointwise": "project"}[block[2]]
            return f"block_{block[1]}_{part}"
        return "stem" if scope == "Conv2d_0" else None
    block = re.fullmatch(r"expanded_conv(?:_(\d+))?/(expand|depthwise|project)", scope)
    if block:  # theirs count from 0, which has no number
        return f"block_{int(block[1] or 0) + 1}_{block[2]}"
    return {"Conv": "stem", "Conv_1": "top"}.get(scope)


def read_checkpoint(prefix: str) -> Stored:
    """What a checkpoint holds, by its prefix; averages where it has them."""
    reader = tf.train.load_checkpoint(prefix)
    names = set(reader.get_variable_to_shape_map())
    layers: Layers = {}
    averaged = 0
    for name in sorted(names):
        found = SCOPE.fullmatch(name)
        layer = found and plan_name(found[1], found[2])
        if not found or not layer or found[4] not in VARIABLES:
            continue  # the step, slots of the optimizer, averages
        layer += "_bn" if found[3] else ""
        variable = VARIABLES[found[4]]
        if variable in layers.setdefault(layer, {}):
            raise UsageError(f"it holds two networks: {name} is there twice")
        average = f"{name}{AVERAGE}"
        averaged += average in names
        layers[layer][variable] = reader.get_tensor(
            average if average in names else name
        )
    if not layers:
        raise UsageError(
            "there is no MobilenetV1/ or MobilenetV2/ of slim in it, but "
            f"{', '.join(sorted(names)[:3]) or 'nothing'}"
        )
    classes = layers.get(CLASSIFIER, {}).get("bias", ())
    return Stored(
        "TensorFlow checkpoint of slim" + (", moving averages" if averaged else ""),
        layers,
        AS_PUBLISHED,
        background=len(classes) == WITH_BACKGROUND,
    )
