"""A network with rounded numbers learns the answers of the one that it was made of.

Not the labels (Hinton et al. 2015, arXiv:1503.02531): so it does not matter by what
loss the network was trained, and each class has its share in what is learned. In every
step kernels are rounded as a file has them; what is learned are the numbers before
that, whose gradients are those of the rounded ones (Jacob et al. 2017,
arXiv:1712.05877, section 3).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_mobilenets.data import Splits
from keras_mobilenets.deploy.correction import ROUNDED, round_kernel
from keras_mobilenets.deploy.network import Network
from keras_mobilenets.errors import UsageError
from keras_mobilenets.training.counting import counting

# Of Adam: where rounding does nothing to the answers, gradients are its noise; at
# Keras' 1e-7 steps along it are as long as any, and lead away from a good start.
EPSILON = 1e-2
CROSS_ENTROPY: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "softmax": tf.nn.softmax_cross_entropy_with_logits,
    "sigmoid": lambda labels, logits: tf.reduce_mean(
        tf.nn.sigmoid_cross_entropy_with_logits(labels, logits), axis=-1
    ),
}


def learn(
    network: Network,
    student: keras.Model,
    splits: Splits,
    epochs: int,
    learning_rate: float,
    verbose: bool,
) -> dict[str, Any]:
    """Train the student, from images to logits, in place; what became of it, for JSON.

    It is left as it was after the best epoch, which may be none: numbers that steps too
    long have spoiled are cut off at the ends of ranges, and no loss shows it. The
    divergence of its answers (Kullback and Leibler's, in nats) is 0 where they are the
    network's.

    Raises:
        UsageError: the network gives what is no number.
    """
    step = _make_step(network, student, learning_rate, epochs * splits.steps_per_epoch)
    measure = _make_measure(network, student, splits)
    exact, *measured = measure()
    if not math.isfinite(measured[0]["divergence"]):
        raise UsageError(
            "model must give numbers; it gives NaN or infinity for some of the images "
            f"({splits.source}, validation split)"
        )
    best, weights = 0, student.get_weights()
    for epoch in range(1, epochs + 1):
        bar = keras.utils.Progbar(splits.steps_per_epoch, verbose=int(verbose))
        for images, _, *rest in splits.train:
            loss = float(step(images, rest[0] if rest else tf.ones(len(images))))
            bar.add(1, [("divergence", loss)])
        measured.append(measure()[1])
        if measured[epoch]["divergence"] < measured[best]["divergence"]:
            best, weights = epoch, student.get_weights()
    student.set_weights(weights)
    if not best:
        first, *_, last = (figures["divergence"] for figures in measured)
        warnings.warn(
            "fine-tuning brought answers for the validation split no nearer to those "
            f"in float32 than calibration does (divergence {first:.3g}, then "
            f"{last:.3g}): the model is given as it was calibrated; a lower "
            f"learning_rate than {learning_rate:g} may help",
            stacklevel=4,
        )
    return {
        "epochs": epochs,
        "learning_rate": learning_rate,
        "best_epoch": best,
        "validation": {
            "float32": exact,
            "calibrated": measured[0],
            "fine_tuned": measured[best],
        },
    }


def _divergence_of(network: Network) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """From logits and those that they should be, [b, classes], to a number an image."""
    cross_entropy = CROSS_ENTROPY[network.squashing]
    squash = keras.activations.get(network.squashing)

    def divergence(logits: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
        shares = squash(wanted)
        return cross_entropy(shares, logits) - cross_entropy(shares, wanted)

    return divergence


def _make_step(
    network: Network, student: keras.Model, learning_rate: float, steps: int
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """`step(images, weights)`, which gives the loss; kernels are rounded at once."""
    layers = [layer for layer in student.layers if isinstance(layer, ROUNDED)]
    kernels = [keras.Variable(layer.kernel, dtype="float32") for layer in layers]
    before = {id(la.kernel): k for la, k in zip(layers, kernels, strict=True)}
    used = student.trainable_variables
    learned = [before.get(id(variable), variable) for variable in used]
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    optimizer = keras.optimizers.Adam(rate, epsilon=EPSILON)
    optimizer.build(learned)
    divergence = _divergence_of(network)

    def round_kernels() -> None:
        for layer, kernel in zip(layers, kernels, strict=True):
            layer.kernel.assign(round_kernel(layer, kernel))

    @tf.function(autograph=False)
    def step(images: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        wanted = network.logits(images, training=False)
        with tf.GradientTape() as tape:
            logits = student(images, training=True)
            loss = tf.reduce_mean(weights * divergence(logits, wanted))
        gradients = tape.gradient(loss, [variable.value for variable in used])
        optimizer.apply(gradients, learned)
        round_kernels()
        return loss

    round_kernels()
    return step


def _make_measure(
    network: Network, student: keras.Model, splits: Splits
) -> Callable[[], list[dict[str, float]]]:
    """Figures of the network, and of the student, on the validation split."""
    of, divergence = counting(splits.multi_label), _divergence_of(network)
    squash = keras.activations.get(network.squashing)

    @tf.function(autograph=False, reduce_retracing=True)
    def sums(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        wanted = network.logits(images, training=False)
        both = (wanted, student(images, training=False))
        apart = [tf.reduce_sum(weights * divergence(logits, wanted)) for logits in both]
        return tf.stack(
            [
                tf.concat(
                    [[tf.cast(d, tf.float64)], of.sums(squash(x), labels, weights)], 0
                )
                for d, x in zip(apart, both, strict=True)
            ]
        )

    def measure() -> list[dict[str, float]]:
        total: Any = 0.0
        for images, labels, *rest in splits.validation:
            weights = rest[0] if rest else tf.ones(len(images))
            total = total + sums(images, labels, weights).numpy()
        return [
            {
                "divergence": float(apart / counted[0]),
                **{name: float(value) for name, value in of.figures(counted).items()},
            }
            for apart, counted in ((row[0], row[1:]) for row in total)
        ]

    return measure
