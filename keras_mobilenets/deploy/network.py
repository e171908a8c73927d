"""A model as it is exported: folded, in float32, its logits apart from the softmax."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np

from keras_mobilenets.deploy.fake_quantization import FakeQuantize, is_fake_quantized
from keras_mobilenets.deploy.folding import fold
from keras_mobilenets.errors import UsageError

SQUASHING = {
    "softmax": keras.activations.softmax,
    "sigmoid": keras.activations.sigmoid,
}
# Behind these there are features, not classes.
FEATURES = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)
BATCH = 32  # images that go through Keras at once


class Network(NamedTuple):
    """What is exported: `logits` maps images [b, height, width, channels] to [b, n].

    `squashing`, "softmax" or "sigmoid", makes probabilities of these.
    """

    logits: keras.Model
    squashing: str

    @property
    def classes(self) -> int:
        """How many there are."""
        return self.logits.output_shape[-1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image: height, width, channels."""
        return self.logits.input_shape[1:]

    @property
    def is_fake_quantized(self) -> bool:
        """Whether it was trained with the steps of 8 bits, and has their ranges."""
        return is_fake_quantized(self.logits)

    @property
    def is_dilated(self) -> bool:
        """Whether a convolution skips pixels (`output_stride`)."""
        return any(
            max(np.ravel(getattr(layer, "dilation_rate", 1))) > 1
            for layer in self.logits.layers
        )


def network_of(model: keras.Model, may_be_quantized: bool = False) -> Network:
    """The network of a Keras model that classifies images.

    One that ends in logits gets a softmax for its probabilities. One that was
    fine-tuned to 8 bits, where it `may_be`, stays as it is.

    Raises:
        UsageError: it is none, or cannot be folded; see `fuse`.
    """
    fused = fold(model, besides=(FakeQuantize,) if may_be_quantized else ())
    if len(fused.inputs) != 1 or len(fused.outputs) != 1:
        raise UsageError(
            f"model must have one input and one output; {model.name!r} has "
            f"{len(fused.inputs)} and {len(fused.outputs)}"
        )
    shape, (tensor,) = fused.inputs[0].shape, fused.outputs
    if len(shape) != 4 or None in shape[1:]:
        raise UsageError(
            "model must take images of one size, [batch, height, width, channels]; "
            f"{model.name!r} takes {tuple(shape)}"
        )
    squashing, last = "softmax", _maker(tensor)
    if isinstance(last, keras.layers.Softmax):
        tensor = last.input
    elif getattr(last, "activation", None) in SQUASHING.values():
        (squashing,) = (n for n, f in SQUASHING.items() if f is last.activation)
        if isinstance(last, keras.layers.Activation):
            tensor = last.input
        else:
            last.activation = keras.activations.linear  # the fused model is ours
    if len(tensor.shape) != 2 or isinstance(_maker(tensor), FEATURES):
        raise UsageError(
            f"model must end in one number a class; {model.name!r} ends in features "
            f"of shape {tuple(tensor.shape)}: build it with include_top=True"
        )
    logits = keras.Model(fused.inputs[0], tensor, name=fused.name)
    return Network(logits, squashing)


def _maker(tensor: keras.KerasTensor) -> Any:
    return tensor._keras_history.operation


def in_batches(function: Any, images: np.ndarray) -> np.ndarray:
    """What a function of batches says of any number of images, as float32.

    >>> in_batches(model, images).shape
    (200, 10)
    """
    parts = range(0, len(images), BATCH)
    answers = [np.array(function(images[at : at + BATCH])) for at in parts]
    return np.concatenate(answers).astype("float32")
