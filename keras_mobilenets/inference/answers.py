"""One pass over a split: what a network says of every image, added up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets.data import Splits
from keras_mobilenets.errors import UsageError
from keras_mobilenets.inference import label_tally, tally
from keras_mobilenets.training.distribution import distribute


def _label_rows(
    scores: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, numbers: tf.Tensor
) -> tf.Tensor:
    """The rows of a `LabelTally`, [b, columns]."""
    of = {
        "number": numbers,
        "loss": keras.losses.binary_crossentropy(labels, scores),
        "weight": weights,
    }
    columns = [tf.cast(of[name], tf.float64)[:, None] for name in label_tally.COLUMNS]
    columns += [tf.cast(labels, tf.float64), tf.cast(scores, tf.float64)]
    return tf.concat(columns, axis=1)


def _class_rows(
    scores: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, numbers: tf.Tensor
) -> tf.Tensor:
    """The rows of a `Tally`, [b, columns]."""
    of = {
        "number": numbers,
        "label": labels,
        "predicted": tf.argmax(scores, axis=-1),
        "confidence": tf.reduce_max(scores, axis=-1),
        "loss": keras.losses.sparse_categorical_crossentropy(labels, scores),
        "top5": tf.math.in_top_k(labels, scores, min(5, scores.shape[-1])),
        "weight": weights,
    }
    return tf.stack([tf.cast(of[name], tf.float64) for name in tally.COLUMNS], axis=1)


def tally_answers(
    forward: Callable[..., tf.Tensor],
    strategy: tf.distribute.Strategy,
    splits: Splits,
    split: str,
    verbose: bool = False,
) -> Any:
    """All that a model ending in probabilities says of a split, under a strategy.

    Every process of a strategy gets the same: a `Tally`, or a `LabelTally` where an
    image may have several labels.
    """
    several = splits.multi_label

    def rows_of(
        images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, numbers: tf.Tensor
    ) -> tf.Tensor:
        scores = tf.cast(forward(images, training=False), tf.float32)
        rows = _label_rows if several else _class_rows
        return rows(scores, labels, weights, numbers)

    @tf.function(autograph=False)
    def step(batch: Any) -> tf.Tensor:
        return strategy.gather(strategy.run(rows_of, batch), axis=0)

    batches = distribute(strategy, splits, lambda share: share.enumerated(split))
    length = -(-getattr(splits, f"num_{split}") // splits.batch_size)
    bar = keras.utils.Progbar(length, verbose=1 if verbose else 0)
    answers = label_tally.LabelTally() if several else tally.Tally()
    for batch in batches:
        answers.add(np.array(step(batch)))
        bar.add(1, [("loss", answers.loss / max(answers.images, 1))])
    if not answers.images:
        raise UsageError("there must be at least one image to measure; got none")
    return answers
