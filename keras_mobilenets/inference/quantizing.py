"""`fine_tune_quantized`: a network trained to say in 8 bits what it says in float32."""

from __future__ import annotations

import os
from typing import Any

import keras

from keras_mobilenets.architecture.arguments import (
    check_flag,
    check_integer,
    check_number,
    shown,
)
from keras_mobilenets.architecture.shapes import sides
from keras_mobilenets.data import Splits
from keras_mobilenets.deploy.correction import ROUNDED, corrected
from keras_mobilenets.deploy.fake_quantization import fake_quantize, is_fake_quantized
from keras_mobilenets.deploy.network import Network, network_of
from keras_mobilenets.deploy.pictures import check_ranges, training_images
from keras_mobilenets.errors import UsageError
from keras_mobilenets.inference.distilling import learn
from keras_mobilenets.inference.run_data import load_run_data
from keras_mobilenets.training.measuring import load_run_model
from keras_mobilenets.training.outputs import ends_in_logits
from keras_mobilenets.training.workdir import find_finished, read_report

LEARNING_RATE = 1e-3


def fine_tune_quantized(
    model: keras.Model | str | os.PathLike[str] | None = None,
    data: Any = None,
    *,
    epochs: int = 2,
    learning_rate: float = LEARNING_RATE,
    data_dir: str | os.PathLike[str] | None = None,
    verbose: bool = True,
) -> keras.Model:
    """Fine-tune a trained network to 8 bits: its int8 file needs no calibration then.

    The network is folded as by `km.fuse`, its kernels are rounded and what goes from
    layer to layer too, wherever LiteRT rounds it; then it learns to answer as it did.
    `km.export(..., quantization="int8")` writes its file with the ranges that it has
    learned. It begins as calibration with bias correction leaves it, and is given back
    as it was after the epoch in which its answers for the validation split were nearest
    to those of the network in float32. On one device; of a run, or of `Splits` that
    nothing has read yet, the same every time on a CPU.

    Args:
        model: a Keras model that classifies images; or the directory of a finished run,
            by default the newest in `runs`.
        data: `Splits` of `load_data`, as the network was trained on; their training
            images are learned from, by the recipe that prepares them. Of a run also any
            source of `load_data` with its classes; by default its own data.
        epochs: passes over the training images, at least 1.
        learning_rate: of the first step, above 0; it falls to 0 by a cosine.
        data_dir: where TFDS keeps its prepared data; of a run.
        verbose: show progress, and accuracy on the validation split.

    Returns:
        A new model in float32, not compiled, of Keras' layers and `FakeQuantize`, from
        images [b, height, width, channels] to what `model` ends in. It can be saved;
        `import keras_mobilenets.deploy` before it is loaded.

    Raises:
        UsageError: the model cannot be quantised, or is already, or the data are not
            those of the model. Where no epoch brought it nearer to the network in
            float32 that is a warning.

    >>> quantized = fine_tune_quantized("runs/digits-1")
    >>> km.export(quantized, "digits.tflite", quantization="int8")["calibration"]
    """
    check_flag("verbose", verbose)
    check_options("epochs", epochs, learning_rate)
    if isinstance(model, keras.Model):
        if not isinstance(data, Splits):
            raise UsageError(
                "data must be Splits of km.load_data where model is a Keras model; got "
                f"{shown(data)}"
            )
        if data_dir is not None:
            raise UsageError(
                "data_dir is for the model of a run; got it with a Keras model: give "
                "data=km.load_data(..., data_dir=...)"
            )
        return fine_tune(model, data, epochs, learning_rate, verbose)[0]
    if model is not None and not isinstance(model, (str, os.PathLike)):
        raise UsageError(
            f"model must be a Keras model or the directory of a run; got {shown(model)}"
        )
    directory = find_finished(model)
    settings, stored = read_report(directory)
    splits = data
    if not isinstance(data, Splits):
        _, splits = load_run_data(
            directory, settings, stored, data=data, data_dir=data_dir
        )
    model = load_run_model(directory, len(stored["classes"]))
    return fine_tune(model, splits, epochs, learning_rate, verbose)[0]


def check_options(argument: str, epochs: Any, learning_rate: Any) -> None:
    """Raises UsageError for what `fine_tune` does not take."""
    fix = "without any, km.export(..., quantization='int8') calibrates"
    check_integer(argument, epochs, low=1, fix=fix)
    check_number("learning_rate", learning_rate, low=0, open_low=True)


def fine_tune(
    model: keras.Model,
    splits: Splits,
    epochs: int,
    learning_rate: float,
    verbose: bool,
    argument: str = "data",
) -> tuple[keras.Model, dict[str, Any]]:
    """The same of a model, and what was reached on the validation split.

    `argument` is what the splits were given as.
    """
    if is_fake_quantized(model):
        raise UsageError(
            "model must be in float32; got one that was fine-tuned for 8 bits already: "
            "export it, or give the one before, with more epochs"
        )
    network = network_of(model)
    in_logits = ends_in_logits(model, network.squashing)
    _check_splits(argument, splits, network)
    images = training_images(splits)
    check_ranges(argument, images, prepared=True)
    student = fake_quantize(network.logits, images)
    for layer in corrected(network.logits, images).layers:
        if isinstance(layer, ROUNDED) and layer.use_bias:
            student.get_layer(layer.name).bias.assign(layer.bias)
    report = learn(network, student, splits, epochs, learning_rate, verbose)
    if in_logits:
        return student, report
    squash = keras.layers.Activation(
        network.squashing, dtype="float32", name="predictions"
    )
    (image,), (logits,) = student.inputs, student.outputs
    return keras.Model(image, squash(logits), name=student.name), report


def _check_splits(argument: str, splits: Splits, network: Network) -> None:
    has = (*sides(splits.resolution), splits.channels)
    if has != network.shape or len(splits.classes) != network.classes:
        raise UsageError(
            f"{argument} must have the model's images {network.shape} and its "
            f"{network.classes} classes; got Splits of {has} and {len(splits.classes)}"
        )
    if splits.multi_label and network.squashing != "sigmoid":
        raise UsageError(
            f"{argument} must have one label an image for a model that ends in softmax "
            "or in logits; got Splits with several: build the model with "
            "classifier_activation='sigmoid'"
        )
