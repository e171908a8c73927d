"""`load_data`: from the name of a source to batches for `model.fit`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mobilenets.architecture.arguments import (
    check_channels,
    check_choice,
    check_flag,
    check_integer,
    check_resolution,
)
from keras_mobilenets.architecture.shapes import Resolution
from keras_mobilenets.data.checking import ANSWERS
from keras_mobilenets.data.finding import find_source, name_of
from keras_mobilenets.data.index import Index
from keras_mobilenets.data.parts import MEMORY_BUDGET, Running
from keras_mobilenets.data.pipeline import (
    Epochs,
    evaluation_batches,
    targets,
    training_batches,
)
from keras_mobilenets.data.splits import Splits
from keras_mobilenets.data.weighting import class_weights
from keras_mobilenets.errors import UsageError
from keras_mobilenets.given import take
from keras_mobilenets.recipe import Recipe, get_recipe
from keras_mobilenets.storage import check_path

MAX_THREADS = 1024  # of a dataset's own


def load_data(
    source: Any = "digits",
    *,
    resolution: Resolution,
    channels: int = 3,
    batch_size: int | None = None,
    recipe: str | Recipe | None = None,
    seed: int = 0,
    data_dir: str | os.PathLike | None = None,
    splits: Mapping[str, str] | None = None,
    label: str | None = None,
    image: str | None = None,
    multi_label: bool | None = None,
    index: str | os.PathLike | None = None,
    broken: str = "skip",
    class_weight: str | Mapping[Any, float] | None = None,
    pad_evaluation: bool | None = None,
    input_context: tf.distribute.InputContext | None = None,
    memory_budget: int = MEMORY_BUDGET,
    threads: int | None = None,
) -> Splits:
    """A source of images as batches, prepared as the recipe says.

    `source`:

    - "digits": scikit-learn's handwritten digits, which need no download;
    - a TFDS name, such as "oxford_flowers102": downloaded and prepared if need be;
      its splits as `prepared.builder_source` says. "fashion_mnist" is prepared from
      Debian's package dataset-fashion-mnist, without a download, where that is
      installed;
    - a folder of class folders, with or without train, validation and test folders
      above them, as `folder.folder_source` says. A bare word is a folder only if
      TFDS does not know it: write "./cifar10" for a folder of that name;
    - a CSV file (named .csv) of path, label and, if wanted, split, as
      `table.read_table` says; or a list, or any iterable, of (path, label);
    - arrays (images, labels): images uint8 [n, h, w] or [n, h, w, channels], labels
      whole numbers or text [n]; they are not copied, so leave them as they are;
    - a `tf.data.Dataset` of (uint8 image, label), one image each, of any sizes: it is
      read once and kept, up to `memory_budget` bytes a split;
    - the last three by split: {"train": ..., "validation": ..., "test": ...}.

    However they come, the same images give the same batches: see `dividing.divide`.

    `resolution` is the side of the network's input in pixels (at least 32), or
    (height, width), `channels` 3 (RGB), 1 (grey) or 4 (RGB and alpha; images without
    it are opaque), and `batch_size` the images of a step on all replicas together
    (default: the recipe's). `recipe` (a name or a `Recipe`; default "quick", which
    distorts nothing; "slim_v2" prepares as the papers do) gives the preprocessing and
    whether class 0 is a background class. `seed` (a whole number) decides order and
    distortions. `data_dir` is TFDS's directory of prepared datasets; folders do
    without.

    `splits` takes others, or parts, of a TFDS dataset's splits:
    {"train": "train[:50%]"}. `label` and `image` name its features where they are not
    called so: label="Smiling", one of celeb_a's attributes, makes two classes. Of a
    CSV file they name the columns.

    `multi_label` says whether an image may have several labels, or none. By default it
    does where labels are lists, such as (path, ["cat", "dog"]), or rows of 0 and 1,
    [n, classes], in arrays and datasets; where all have exactly one, they may be
    one-hot, so it has to be said. In a CSV file labels are joined, "cat|dog": that has
    to be said too, as "|" may be part of a name. The recipe's background class is then
    left out: nothing of all is what no label says.

    `index` is a file that `Splits.index.save` wrote: the splits are those of then, to
    the file, or to the example of a TFDS dataset, whatever has been added, removed or
    broken since; a folder is not looked through. UsageError if it is damaged, of
    another source, or the dataset has been prepared otherwise since.

    `broken` says what becomes of files in a folder that cannot be read as images, and
    of class folders without one, all of which are found before anything else is
    done: "skip" (one warning, and they do not count) or "fail" (UsageError). A file
    that breaks later, during a run, or between two of one index, is named then. With
    "skip" the next good file, most often one of its class, stands in for it in
    training, whose batches stay full, and it does not count in evaluation; with "fail"
    the run ends. So it does in either case when a hundred files in a row are gone.
    What else is passed over in a folder (names that are not those of images, hidden
    ones, images outside class folders, links that lead back) is said in one warning.

    `class_weight` is what an image counts in the training loss, by its class:
    "balanced", or {class: weight}, as `weighting.class_weights` says. The batches of
    `train` have a third part then, float32 [b], as `model.fit` takes it; those of
    evaluation count every image the same.

    `pad_evaluation=True` fills the last batch of `validation` and `test`, whose
    batches are then (images, labels, weights): weights, float32 [b], are 1 for images
    and 0 for filling, as `model.evaluate` takes them. With `input_context`, for
    `strategy.distribute_datasets_from_function`, the batches are one replica's share,
    and each worker has its own, and as many as the others. Evaluation is padded then,
    unless `pad_evaluation` says no, and has every image once.

    The batches of a step make up one worker's batch, so that results do not depend on
    the number of workers: each reads the whole source (of a folder, the list of its
    files) and decodes its own images. Not so where a TFDS split is larger than
    `memory_budget`: each worker then reads a portion of its own, in training another
    one in each epoch, and which images share a batch depends on the number of workers.

    Order: the images of a folder, and of a split that fits `memory_budget` (bytes;
    default 256 MiB) and is kept in memory as it is stored, come in a permutation that
    (seed, epoch) decide, every one equally likely. A larger TFDS split is read from
    its files, in an order that (seed, epoch) decide, up to sixteen at once, and the
    budget is that of the shuffle buffer behind them; see `data.order`. `threads` gives
    the batches a thread pool of their own (default: TensorFlow's).

    UsageError if the source is unknown, cannot be prepared or has too few images, or
    if an argument is out of range.

    >>> data = load_data("digits", resolution=48)
    >>> data.classes[:3], data.steps_per_epoch
    (('0', '1', '2'), 44)
    >>> model.fit(data.train, epochs=10, validation_data=data.validation)
    """
    resolution = check_resolution(None, resolution)
    channels = check_channels(channels)
    recipe = get_recipe("quick" if recipe is None else recipe)
    seed = check_integer("seed", seed, low=0)
    if seed >= 2**63:
        raise UsageError(f"seed must be below 2**63; got {seed}")
    for option, value in (
        ("pad_evaluation", pad_evaluation),
        ("multi_label", multi_label),
    ):
        if value is not None:
            check_flag(option, value)
    answer = ANSWERS[check_choice("broken", broken, ANSWERS)]
    batch_size = recipe.batch_size if batch_size is None else batch_size
    running = _running(batch_size, input_context, threads)
    memory = check_integer("memory_budget", memory_budget, low=0)
    data_dir = None if data_dir is None else check_path("data_dir", data_dir)
    source = take(source, memory)
    notes: list[str] = []
    parts = find_source(
        source,
        data_dir,
        splits,
        memory,
        answer,
        lambda sentence, _: notes.append(sentence),
        recipe.exif_orientation,
        index,
        label,
        image,
        multi_label,
    )
    if notes:
        warnings.warn("; ".join(notes), stacklevel=2)
    if parts.train.count < running.batch_size:
        raise UsageError(
            f"batch_size must be at most the {parts.train.count} training images of "
            f"{str(source)!r}, as training batches are full; got "
            f"{running.batch_size}"
        )
    classes, shift, several = parts.classes, 0, parts.label_sets is not None
    if recipe.background_class and not several:
        classes, shift = ("background", *classes), 1
    target_of = targets(len(classes), parts.label_sets, shift)
    weights = None
    if class_weight is not None:
        if several:
            raise UsageError(
                "class_weight is for images of one label each; got "
                f"{class_weight!r} for {str(source)!r}, whose images may have several"
            )
        weights = class_weights(class_weight, parts.classes, parts.train)
    epochs = Epochs()

    def splits_of(running: Running) -> Splits:
        pad = running.replica_batch_size < running.batch_size
        if pad_evaluation is not None:
            pad = pad_evaluation

        def once(name: str, numbered: bool = False) -> tf.data.Dataset:
            part = getattr(parts, name)
            return evaluation_batches(
                part, resolution, channels, recipe, target_of, running, pad, numbered
            )

        def undistorted() -> tf.data.Dataset:
            whole = recipe.replace(eval_crop=None)
            return evaluation_batches(
                parts.train, resolution, channels, whole, target_of, running, pad=False
            )

        def train(
            endless: bool,
            anywhere: bool = False,
            rows: tuple[np.ndarray, np.ndarray] | None = None,
        ) -> tf.data.Dataset:
            return training_batches(
                parts.train,
                resolution,
                channels,
                recipe,
                seed,
                target_of,
                running,
                None if anywhere else epochs,
                endless,
                rows,
                None if weights is None else (*[1.0] * shift, *weights),
            )

        return Splits(
            source=name_of(source),
            classes=classes,
            num_train=parts.train.count,
            num_validation=parts.validation.count,
            num_test=parts.test.count,
            resolution=resolution,
            channels=channels,
            batch_size=running.batch_size,
            steps_per_epoch=running.steps(parts.train.count),
            class_weights=weights,
            multi_label=several,
            index=Index(parts.describe),
            epochs=epochs,
            endless=lambda anywhere=False, rows=None: train(True, anywhere, rows),
            for_worker=lambda context: splits_of(
                _running(batch_size, context, threads)
            ),
            undistorted=undistorted,
            numbered=parts.train.shards is None,
            _once=once,
            _shuffled=lambda: train(endless=False),
            _parts=parts,
            recipe=recipe,
        )

    return splits_of(running)


def _running(
    batch_size: int,
    context: tf.distribute.InputContext | None,
    threads: int | None,
) -> Running:
    """How batches are to be made, checked."""
    batch_size = check_integer("batch_size", batch_size, low=1)
    if threads is not None:
        threads = check_integer("threads", threads, low=1, high=MAX_THREADS)
    if context is None:
        return Running(batch_size, threads)
    if not isinstance(context, tf.distribute.InputContext):
        raise UsageError(
            "input_context must be a tf.distribute.InputContext, as "
            "strategy.distribute_datasets_from_function gives; got "
            f"{type(context).__name__}"
        )
    replicas, workers = context.num_replicas_in_sync, context.num_input_pipelines
    if batch_size % replicas:
        raise UsageError(
            f"batch_size must be a multiple of the {replicas} replicas of "
            f"input_context; got {batch_size}"
        )
    return Running(
        batch_size,
        threads,
        context.input_pipeline_id,
        workers,
        replicas // workers,
    )
