"""What is counted of images as they pass, and the figures that come of the sums.

Of images with one label each: cross entropy and accuracy. Where an image may have
several labels: binary cross entropy, the share of right answers to all questions
whether an image has a label, and F1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

THRESHOLD = 0.5  # a label is said where its probability is above, as in Keras' metrics


class Counting(NamedTuple):
    """`sums(scores, labels, weights)` of a batch, float64, and what they come to.

    The first sum is the number of images, the second that of their losses.
    """

    sums: Callable[[tf.Tensor, tf.Tensor, Any], tf.Tensor]
    figures: Callable[[np.ndarray], dict[str, float]]


def _class_sums(scores: tf.Tensor, labels: tf.Tensor, weights: Any) -> tf.Tensor:
    loss = keras.losses.sparse_categorical_crossentropy(labels, scores)
    right = tf.equal(tf.argmax(scores, axis=-1), tf.cast(labels, tf.int64))
    weights = tf.broadcast_to(tf.cast(weights, tf.float64), tf.shape(loss))
    each = [1.0, tf.cast(loss, tf.float64), tf.cast(right, tf.float64)]
    return tf.stack([tf.reduce_sum(weights * value) for value in each])


def _class_figures(total: np.ndarray) -> dict[str, float]:
    images, loss, right = total
    return {"loss": loss / images, "accuracy": right / images}


def _label_sums(scores: tf.Tensor, labels: tf.Tensor, weights: Any) -> tf.Tensor:
    scores = tf.cast(scores, tf.float32)
    loss = keras.losses.binary_crossentropy(labels, scores)
    weights = tf.broadcast_to(tf.cast(weights, tf.float64), tf.shape(loss))
    said, has = scores > THRESHOLD, labels > 0.5
    right = tf.reduce_mean(tf.cast(said == has, tf.float64), axis=-1)
    each = [1.0, tf.cast(loss, tf.float64), right]
    whole = tf.stack([tf.reduce_sum(weights * value) for value in each])
    by_label = [
        tf.reduce_sum(weights[:, None] * tf.cast(value, tf.float64), axis=0)
        for value in (said & has, said, has)
    ]
    return tf.concat([whole, *by_label], axis=0)


def _label_figures(total: np.ndarray) -> dict[str, float]:
    images, loss, right = total[:3]
    return {
        "loss": loss / images,
        "binary_accuracy": right / images,
        "f1_score": mean_f1(*total[3:].reshape(3, -1)),
    }


def mean_f1(right: np.ndarray, said: np.ndarray, has: np.ndarray) -> float:
    """The mean over labels of F1; of those that no image has or is said to have none.

    >>> mean_f1(np.array([1, 0]), np.array([2, 0]), np.array([2, 0]))
    0.5
    """
    there = said + has > 0
    return (
        float(np.mean(2 * right[there] / (said + has)[there])) if there.any() else 0.0
    )


OF_CLASSES = Counting(_class_sums, _class_figures)
OF_LABELS = Counting(_label_sums, _label_figures)


def counting(multi_label: bool) -> Counting:
    """What is counted where an image may have several labels, or has one."""
    return OF_LABELS if multi_label else OF_CLASSES
