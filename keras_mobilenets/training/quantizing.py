"""`fine_tune_quantized`: a network trained to say in 8 bits what it says in float32.

What it learns is the answers of the network as it was, on the training images (Hinton et
al. 2015, arXiv:1503.02531), not their labels, whatever loss it was trained by. In every
step kernels are rounded as a file has them; what is learned are the numbers before that
(Jacob et al. 2017, arXiv:1712.05877, section 3).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets.architecture.arguments import (
    check_flag,
    check_integer,
    check_number,
    shown,
)
from keras_mobilenets.architecture.shapes import sides
from keras_mobilenets.data import Splits
from keras_mobilenets.deploy.correction import ROUNDED, corrected, round_kernel
from keras_mobilenets.deploy.fake_quantization import fake_quantize, is_fake_quantized
from keras_mobilenets.deploy.network import Network, network_of
from keras_mobilenets.deploy.pictures import check_ranges, training_images
from keras_mobilenets.errors import TrainingDiverged, UsageError
from keras_mobilenets.training.counting import counting
from keras_mobilenets.training.inference import load_run_model
from keras_mobilenets.training.outputs import ends_in_logits
from keras_mobilenets.training.run_data import load_run_data
from keras_mobilenets.training.workdir import find_finished, read_report

LEARNING_RATE = 1e-4
CROSS_ENTROPY: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "softmax": tf.nn.softmax_cross_entropy_with_logits,
    "sigmoid": lambda labels, logits: tf.reduce_mean(
        tf.nn.sigmoid_cross_entropy_with_logits(labels, logits), axis=-1
    ),
}


def fine_tune_quantized(
    model: keras.Model | str | os.PathLike[str] | None = None,
    data: Any = None,
    *,
    epochs: int = 2,
    learning_rate: float = LEARNING_RATE,
    data_dir: str | os.PathLike[str] | None = None,
    verbose: bool = True,
) -> keras.Model:
    """Fine-tune a trained network to 8 bits, so that its int8 file needs no calibration.

    The network is folded as by `km.fuse`, its kernels are rounded and what goes from
    layer to layer too, wherever LiteRT rounds it; then it learns to answer as it did.
    `km.export(..., quantization="int8")` writes its file with the ranges that it has
    learned. It begins as calibration with bias correction leaves it, and is given back
    as it was after the epoch in which its answers for the validation split were nearest
    to those of the network in float32. On one device; the same every time on a CPU.

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
            those of the model.
        TrainingDiverged: no epoch brought it nearer to the network in float32.

    >>> quantized = fine_tune_quantized("runs/digits-1")
    >>> km.export(quantized, "digits.tflite", quantization="int8")["calibration"]
    """
    check_flag("verbose", verbose)
    check_options(epochs, learning_rate)
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
    else:
        if model is not None and not isinstance(model, (str, os.PathLike)):
            raise UsageError(
                "model must be a Keras model or the directory of a run; got "
                f"{shown(model)}"
            )
        directory = find_finished(model)
        settings, stored = read_report(directory)
        if not isinstance(data, Splits):
            _, data = load_run_data(
                directory, settings, stored, data=data, data_dir=data_dir
            )
        model = load_run_model(directory, len(stored["classes"]))
    return fine_tune(model, data, epochs, learning_rate, verbose)[0]


def check_options(epochs: Any, learning_rate: Any, name: str = "epochs") -> None:
    """Raises UsageError for what `fine_tune` does not take."""
    fix = "without any, km.export(..., quantization='int8') calibrates"
    check_integer(name, epochs, low=1, fix=fix)
    check_number("learning_rate", learning_rate, low=0, open_low=True)


def fine_tune(
    model: keras.Model, splits: Splits, epochs: int, learning_rate: float, verbose: bool
) -> tuple[keras.Model, dict[str, Any]]:
    """The same of a model, with what was reached on the validation split."""
    if is_fake_quantized(model):
        raise UsageError(
            "model must be in float32; got one that was fine-tuned for 8 bits already: "
            "export it, or give the one before with more epochs"
        )
    network = network_of(model)
    _check_data(network, splits)
    images = training_images(splits)
    check_ranges("data", images, prepared=True)
    student = fake_quantize(network.logits, images)
    for layer in corrected(network.logits, images).layers:
        if isinstance(layer, ROUNDED) and layer.use_bias:
            student.get_layer(layer.name).bias.assign(layer.bias)
    report = _learn(network, student, splits, epochs, learning_rate, verbose)
    if ends_in_logits(model, network.squashing):
        return student, report
    squash = keras.layers.Activation(
        network.squashing, dtype="float32", name="predictions"
    )
    made = keras.Model(student.inputs, squash(student.outputs[0]), name=student.name)
    return made, report


def _check_data(network: Network, splits: Splits) -> None:
    has = (*sides(splits.resolution), splits.channels)
    if has != network.shape or len(splits.classes) != network.classes:
        raise UsageError(
            f"data must have the model's images {network.shape} and its "
            f"{network.classes} classes; got Splits of {has} and {len(splits.classes)}"
        )
    if splits.multi_label and network.squashing != "sigmoid":
        raise UsageError(
            "data must have one label an image for a model that ends in softmax, or in "
            "logits; got Splits with several: build the model with "
            "classifier_activation='sigmoid'"
        )
    for split in ("train", "validation"):
        if not splits.counts[split]:
            raise UsageError(f"data must have {split} images; got none")


def _learn(
    network: Network,
    student: keras.Model,
    splits: Splits,
    epochs: int,
    learning_rate: float,
    verbose: bool,
) -> dict[str, Any]:
    """Train the student in place."""
    student.trainable = True
    layers = [layer for layer in student.layers if isinstance(layer, ROUNDED)]
    kernels = [keras.Variable(layer.kernel, dtype="float32") for layer in layers]
    exact = {id(la.kernel): k for la, k in zip(layers, kernels, strict=True)}
    used = student.trainable_variables
    learned = [exact.get(id(variable), variable) for variable in used]
    steps = epochs * splits.steps_per_epoch
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build(learned)
    cross_entropy = CROSS_ENTROPY[network.squashing]
    squash = keras.activations.get(network.squashing)

    def round_kernels() -> None:
        for layer, kernel in zip(layers, kernels, strict=True):
            layer.kernel.assign(round_kernel(layer, kernel))

    def distances(said: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
        shares = squash(wanted)
        return cross_entropy(shares, said) - cross_entropy(shares, wanted)

    @tf.function(autograph=False)
    def step(images: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        wanted = network.logits(images, training=False)
        with tf.GradientTape() as tape:
            each = distances(student(images, training=True), wanted)
            loss = tf.reduce_mean(weights * each)
        gradients = tape.gradient(loss, [variable.value for variable in used])
        optimizer.apply(gradients, learned)
        round_kernels()
        return loss

    of = counting(splits.multi_label)

    @tf.function(autograph=False, reduce_retracing=True)
    def look(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> Any:
        wanted = network.logits(images, training=False)
        said = student(images, training=False)
        apart = tf.reduce_sum(weights * distances(said, wanted))
        sums = [of.sums(squash(x), labels, weights) for x in (wanted, said)]
        return apart, *sums

    def measure() -> tuple[float, dict[str, float], dict[str, float]]:
        totals = [np.zeros(1)] * 3
        for images, labels, *rest in splits.validation:
            weights = rest[0] if rest else tf.ones(len(images))
            found = look(images, labels, weights)
            totals = [a + np.array(b) for a, b in zip(totals, found, strict=True)]
        apart = float(totals[0][0] / totals[1][0])
        return apart, *({k: float(v) for k, v in of.figures(t).items()} for t in totals[1:])

    round_kernels()
    begun, in_float32, calibrated = measure()
    best, figures, weights, of_epoch = begun, calibrated, None, 0
    for epoch in range(epochs):
        bar = keras.utils.Progbar(splits.steps_per_epoch, verbose=int(verbose))
        for number, (images, _, *rest) in enumerate(splits.train):
            loss = float(step(images, rest[0] if rest else tf.ones(len(images))))
            if not math.isfinite(loss):
                raise TrainingDiverged(
                    f"the loss became {loss} at step {number + 1} of epoch {epoch + 1} "
                    f"(learning_rate={learning_rate:g}): give a lower learning_rate"
                )
            bar.add(1, [("loss", loss)])
        apart, _, now = measure()
        if verbose: print("  validation", apart, now)
        if apart < best:
            best, figures, weights, of_epoch = apart, now, student.get_weights(), epoch + 1
    if weights is None:
        raise TrainingDiverged(
            f"no epoch brought answers nearer to those in float32 than calibration does ({begun:.3g} nats on the "
            f"validation split): give a lower learning_rate than {learning_rate:g}, or "
            "export without fine-tuning"
        )
    student.set_weights(weights)
    return {
        "epochs": epochs,
        "learning_rate": learning_rate,
        "best_epoch": of_epoch,
        "divergence": {"calibrated": begun, "fine_tuned": best},
        "validation": {
            "float32": in_float32,
            "calibrated": calibrated,
            "fine_tuned": figures,
        },
    }
