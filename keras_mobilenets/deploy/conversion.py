"""From a folded network to the bytes of a LiteRT file.

By a SavedModel in a temporary folder. `from_concrete_functions(..., keras_model)` makes
files that read variables which they do not have, and say NaN; Keras' own
`model.export` allows operations that are TensorFlow's, which a phone has not.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_mobilenets.deploy.network import Network
from keras_mobilenets.startup import stderr_to

SIGNATURE = "classify"
HALF = 127.5  # pixels 0..255 are (x + 1) * 127.5 for x in [-1, 1]


class Kind(NamedTuple):
    """One kind of file: what it stores, and what it computes in."""

    text: str
    least: float  # share of images that must be answered as by Keras
    instead: str  # what to try where they are not
    operations: tf.lite.OpsSet = tf.lite.OpsSet.TFLITE_BUILTINS
    weights: tf.DType | None = None
    activation_bits: int | None = None  # of what goes from layer to layer


KINDS = {
    None: Kind("float32", 0.999, "another version of TensorFlow: this is a fault"),
    "float16": Kind("float16 weights", 0.99, "no quantization", weights=tf.float16),
    "dynamic": Kind("8-bit weights, float32 activations", 0.9, '"int8", or "float16"'),
    "int8": Kind(
        "8 bits",
        0.9,
        'more images for calibration, such as the device will see, "int16x8" or '
        '"float16"',
        tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
        activation_bits=8,
    ),
    "int16x8": Kind(
        "8-bit weights, 16-bit activations",
        0.9,
        'more images for calibration, such as the device will see, or "float16"',
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        activation_bits=16,
    ),
}


def as_pixels(images: np.ndarray) -> np.ndarray:
    """Images in [-1, 1] as uint8 pixels, rounded.

    >>> as_pixels(np.array([-1.0, 0.0, 1.0]))
    array([  0, 128, 255], dtype=uint8)
    """
    return np.clip(np.round((images + 1) * HALF), 0, 255).astype("uint8")


def from_pixels(pixels: np.ndarray) -> np.ndarray:
    """What the network sees of such pixels, in [-1, 1]."""
    return (pixels / HALF - 1).astype("float32")


def make_signature(
    network: Network, input: str, batch: int | None = None, casts: bool = True
) -> Any:
    """The tf.function "classify" of a network: image -> logits, probabilities.

    With `input` "uint8" it takes pixels, and scales them itself; these are whole
    numbers in float32 where it is not to cast them.
    """
    squash = {"softmax": tf.nn.softmax, "sigmoid": tf.nn.sigmoid}[network.squashing]
    pixels = input == "uint8"
    dtype = tf.uint8 if pixels and casts else tf.float32
    spec = tf.TensorSpec([batch, *network.shape], dtype, name="image")

    @tf.function(input_signature=[spec], autograph=False)
    def classify(image: tf.Tensor) -> dict[str, tf.Tensor]:
        x = tf.cast(image, tf.float32)
        if pixels:
            x = _scaled(x, network.is_fake_quantized)
        logits = network.logits(x, training=False)
        return {"logits": logits, "probabilities": squash(logits)}

    return classify


def convert(
    network: Network,
    quantization: str | None,
    images: np.ndarray | None,
    input: str,
) -> bytes:
    """A LiteRT file with one signature, "classify": image -> logits, probabilities.

    `images`, float32 [n, height, width, channels] in [-1, 1], are for calibration, of
    which a network that is fake-quantised needs none. With `input` "uint8" it takes
    pixels, and scales them itself. Its batch is open; that of a dilated network is 1,
    with which no operations for dilation are needed.
    """
    kind = KINDS[quantization]
    # A quantised file rounds its float input, which holds whole numbers, to pixels.
    classify = make_signature(
        network,
        input,
        batch=1 if network.is_dilated else None,
        casts=kind.activation_bits is None,
    )
    module = tf.Module()
    module.kept = [variable.value for variable in network.logits.variables]
    with tempfile.TemporaryDirectory() as folder, quietly():
        tf.saved_model.save(module, folder, signatures={SIGNATURE: classify})
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=[SIGNATURE]
        )
        operations = kind.operations
        if network.is_fake_quantized:  # others ask for images
            operations = tf.lite.OpsSet.TFLITE_BUILTINS
        converter.target_spec.supported_ops = [operations]
        if quantization:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind.weights:
            converter.target_spec.supported_types = [kind.weights]
        if kind.activation_bits and not network.is_fake_quantized:
            assert images is not None
            given = as_pixels(images).astype("float32") if input == "uint8" else images
            converter.representative_dataset = lambda: (
                {"image": i[None]} for i in given
            )
        if kind.activation_bits and input == "uint8":
            converter.inference_input_type = tf.uint8
        return converter.convert()


def _scaled(pixels: tf.Tensor, with_ranges: bool) -> tf.Tensor:
    """Pixels in [-1, 1]; with the ranges on the way, where no images tell them."""
    if not with_ranges:
        return pixels * (1 / HALF) - 1.0
    pixels = tf.quantization.fake_quant_with_min_max_args(pixels, 0, 255)
    return tf.quantization.fake_quant_with_min_max_args(pixels * (1 / HALF), 0, 2) - 1.0


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without what TensorFlow's converter says of itself."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            tempfile.TemporaryFile() as notices,
            stderr_to(notices),
        ):
            warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interp")
            warnings.filterwarnings("ignore", message="Statistics for quantized inputs")
            yield
    finally:
        logger.setLevel(level)
