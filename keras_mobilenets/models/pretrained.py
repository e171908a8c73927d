"""A network as a file of weights has it: which it is, the file says."""

from __future__ import annotations

import os
from typing import Any

import keras

from keras_mobilenets.architecture.shapes import Resolution
from keras_mobilenets.errors import UsageError
from keras_mobilenets.models.builder import build
from keras_mobilenets.models.weights.loading import load_weights, read_weights
from keras_mobilenets.models.weights.setting import Loaded
from keras_mobilenets.models.weights.stored import CLASSIFIER, identify
from keras_mobilenets.weight_files import IMAGENET, find_weights

OF_V2 = ("linear_bottleneck", "shortcut")  # variations that V1 has not


def build_pretrained(
    weights: str | os.PathLike[str],
    name: str | None = None,
    alpha: float | None = None,
    resolution: Resolution | None = None,
) -> tuple[keras.Model, Loaded]:
    """A network with all that a file of weights holds, its classifier included.

    Args:
        weights: as in `load_weights`.
        name, alpha: of "imagenet", by default V2 at 1.0; a file says them itself, and
            has to be of these where they are given.
        resolution: of the input, by default 224, which no file says.

    Raises:
        UsageError: as `load_weights`, or the file has no classifier.

    >>> build_pretrained("mobilenet_v1_0.25_128_quant.tflite")[0].output_shape
    (None, 1001)
    """
    shape: dict[str, Any] = {"resolution": resolution}
    if find_weights(weights).kind == IMAGENET:
        model = build(
            name or "mobilenet_v2", alpha=1 if alpha is None else alpha, **shape
        )
        return model, load_weights(model, weights)
    stored, path = read_weights(weights)
    network = identify(stored.layers)
    if network is None or network.classes is None:
        held = "no MobileNetV1 or V2" if network is None else f"{network}"
        raise UsageError(
            f"weights must hold a whole network, with its classifier; {path!r} holds "
            f"{held}"
        )
    name = network.name if name is None else name
    if alpha is None:
        alpha = network.alpha
    if alpha is None:
        raise UsageError(f"alpha must be given for {path!r}, which has one of its own")
    variant = {
        trait: value
        for trait, value in stored.traits.items()
        if name != "mobilenet_v1" or trait not in OF_V2
    }
    model = build(
        name,
        alpha=alpha,
        classes=network.classes,
        channels=stored.layers["stem"]["kernel"].shape[2],
        **shape,
        **{"classifier_activation": "softmax", **variant},
    )
    loaded = load_weights(model, weights)
    if CLASSIFIER in loaded.new:
        raise UsageError(f"weights must hold a whole network; got {loaded}")
    return model, loaded
