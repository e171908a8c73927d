"""From stored examples to batches: order, augmentation, caching.

Which images a training batch holds, and how they are distorted, depends on the
seed, the epoch and the image's place in its split, on nothing else: not on the
number of threads, not on TensorFlow's global seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mobilenets.architecture.shapes import Resolution, aspect, sides
from keras_mobilenets.data.parts import (
    Part,
    Running,
    in_order,
    numbers_only,
    shuffled,
)
from keras_mobilenets.data.preprocessing import (
    after_eval_box,
    after_train_box,
    cropped,
    eval_box,
    train_box,
)
from keras_mobilenets.recipe import Recipe

PREFETCHED = 4  # batches that are ready before they are asked for


# From the label of an example to what the network is to say of it.
Target = Callable[[tf.Tensor], tf.Tensor]


def targets(
    classes: int, label_sets: Sequence[Sequence[int]] | None, shift: int = 0
) -> Target:
    """The number of the class, int64, plus `shift`; or one number, 0 or 1, a class.

    The latter, float32 [classes], where labels are numbers of `label_sets`.
    """
    if label_sets is None:
        return lambda label: tf.cast(label, tf.int64) + shift
    table = np.zeros([len(label_sets), classes], np.float32)
    for row, label_set in zip(table, label_sets, strict=True):
        row[list(label_set)] = 1
    return lambda label: tf.gather(tf.constant(table), label)


class Epochs:
    """Where the next pass over the training data begins: epoch, and step of it.

    Passes count themselves from 0. `set` names the place of all following passes
    instead: exact under prefetching strategies, and for a resumed run.
    """

    def __init__(self) -> None:
        self._epoch = self._step = 0
        self._counting = True

    def set(self, epoch: int, step: int = 0) -> None:
        """Every pass that begins from now on is `epoch`, from `step` on."""
        self._epoch, self._step, self._counting = epoch, step, False

    def take(self) -> np.ndarray:
        """Epoch and step, int64 [2], of a pass that begins now."""
        place = np.array([self._epoch, self._step], np.int64)
        self._epoch += self._counting
        return place


def training_batches(
    part: Part,
    resolution: Resolution,
    channels: int,
    recipe: Recipe,
    seed: int,
    target_of: Target,
    running: Running,
    epochs: Epochs | None,
    endless: bool = False,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
    weights: Sequence[float] | None = None,
) -> tf.data.Dataset:
    """Full, shuffled, augmented batches; a pass over them is one epoch.

    Gives (float32 [b, height, width, channels], targets [b, ...]); `epochs` says where
    a pass begins, and one that is `endless` goes on with the next epochs. None leaves
    that to chance, wherever the pass is made, which may be in a process without this
    one's Python. `weights`, one for each label that `target_of` makes, make
    a third part of each batch, float32 [b]. Several workers have the images of
    one worker's batch between them, step for step; or of a portion each, where a split
    is read from its shards.

    `rows` are two arrays that have a row for each example of the split, in its order:
    they come in the place of images and labels, and no image is read.
    """
    steps = running.steps(part.count)
    if rows is not None:
        part = numbers_only(part)
        tables = [tf.constant(array) for array in rows]

    examples_of = shuffled(part, seed, running, by_chance=epochs is None)

    def one_epoch(place: tf.Tensor) -> tf.data.Dataset:
        # tf.data mixes the global seed into its own; the global seed of this
        # function's graph is unset, so that the order depends on ours alone.
        tf.compat.v1.get_default_graph().seed = None
        key = tf.random.fold_in(tf.constant([seed, 0], tf.int64), place[0])
        drawn = tf.random.stateless_uniform([2], key, minval=None, dtype=tf.int64)
        keys = tf.data.Dataset.from_tensors(drawn[1]).repeat()
        return tf.data.Dataset.zip(keys, examples_of(place, drawn[0]))

    def example(key, numbered):
        index, (raw, label) = numbered[:2]
        if rows is not None:
            image, label = (tf.gather(table, index) for table in tables)
        else:
            key = tf.stack([key, index])
            box = train_box(key, recipe, aspect(resolution))
            image = part.decode(raw, box, channels == 4)
            image = after_train_box(image, key, resolution, recipe, channels)
            label = target_of(label)
        if weights is None:
            return image, label
        return image, label, tf.gather(tf.constant(weights, tf.float32), label)

    take = epochs.take if epochs else None

    def next_place(_):
        # Python state rather than a variable: it has no device and no strategy.
        return tf.ensure_shape(tf.numpy_function(take, [], tf.int64), [2])

    def and_the_next(place):
        later = tf.data.Dataset.range(place[0] + 1, tf.int64.max)
        later = later.map(lambda epoch: tf.stack([epoch, 0]))
        return tf.data.Dataset.from_tensors(place).concatenate(later)

    def any_place(_):
        # Without seeds, which would be the same in every process.
        low, high = tf.constant(0, tf.int64), tf.constant(2**40, tf.int64)
        epoch = tf.raw_ops.RandomUniformInt(
            shape=tf.zeros([0], tf.int32), minval=low, maxval=high
        )
        return tf.stack([epoch, 0])

    places = tf.data.Dataset.range(1).map(next_place if epochs else any_place)
    if endless:
        places = places.flat_map(and_the_next)
    batches = (
        places.flat_map(_traced(one_epoch))
        .map(_traced(example), num_parallel_calls=running.parallel, deterministic=True)
        .batch(running.replica_batch_size, drop_remainder=True)
    )
    if not endless:
        batches = _of_length(batches, steps * running.replicas)
    return _finished(batches, running)


def evaluation_batches(
    part: Part,
    resolution: Resolution,
    channels: int,
    recipe: Recipe,
    target_of: Target,
    running: Running,
    pad: bool,
    numbered: bool = False,
) -> tf.data.Dataset:
    """Every image of a split once, in a fixed order.

    The last batch may be short; with `pad` it is filled with black images, and each
    batch has a third part: weights, float32 [b], 1 for images and 0 for filling. An
    image that has broken since it was found good does not count: it has weight 0, and
    is left out where there are no weights. `numbered` batches are padded, and have the
    numbers of the images in the split, int64 [b], as a fourth part.
    """
    pad = pad or numbered
    steps = -(-part.count // running.batch_size)
    mine = len(range(running.worker, part.count, running.workers))
    filling = (
        tf.zeros([*sides(resolution), channels]),
        target_of(tf.constant(0, tf.int64)),
        tf.constant(0.0),
        tf.constant(-1, tf.int64),
    )
    given = 4 if numbered else 3 if pad else 2

    def example(number, stored, itself=True):
        raw, label = stored
        # Decoding three quarters of a JPEG takes no less than decoding all of it.
        image = cropped(part.decode(raw, None, channels == 4), eval_box(recipe))
        image = after_eval_box(image, resolution, recipe, channels)
        label = target_of(label)
        return (image, label, tf.cast(itself, tf.float32), number)[:given]

    examples = in_order(part, running)
    if part.fetch and not pad:
        examples = examples.filter(lambda _, stored, itself: itself)
    examples = examples.map(
        _traced(example), num_parallel_calls=running.parallel, deterministic=True
    )
    if pad:
        missing = steps * running.replica_batch_size * running.replicas - mine
        filled = tf.data.Dataset.from_tensors(filling[:given]).repeat(missing)
        batches = examples.concatenate(filled).batch(
            running.replica_batch_size, drop_remainder=True
        )
        length = steps * running.replicas
    else:
        batches = examples.batch(running.replica_batch_size)
        length = -(-mine // running.replica_batch_size)
    return _finished(_of_length(batches, length), running)


def _traced(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of TensorFlow's operations alone, traced without a look at its source.

    That look would take longer than all the rest of preparing a pipeline.
    """
    return tf.autograph.experimental.do_not_convert(function)


def _of_length(batches: tf.data.Dataset, length: int) -> tf.data.Dataset:
    """`batches`, known to be `length` long, though a pass may be shorter.

    A resumed one is; `assert_cardinality` would fail at its end. An empty dataset
    repeated for ever counts as infinite, and the first so many of infinitely many are
    known.
    """
    nothing = tf.nest.map_structure(
        lambda spec: tf.zeros([side or 0 for side in spec.shape], spec.dtype),
        batches.element_spec,
    )
    nothing = tf.data.Dataset.from_tensors(nothing).filter(lambda *_: False).repeat()
    return batches.concatenate(nothing).take(length)


def _finished(batches: tf.data.Dataset, running: Running) -> tf.data.Dataset:
    """Prefetching, in order, and split by example where workers share a dataset."""
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
        if running.workers == 1
        else tf.data.experimental.AutoShardPolicy.OFF
    )
    if running.threads is not None:
        options.threading.private_threadpool_size = running.threads
    # Autotuning can hold up the end of a pass until it wakes next, and its naps double.
    options.autotune.enabled = False
    return batches.prefetch(PREFETCHED).with_options(options)
