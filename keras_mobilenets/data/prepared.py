"""Sources that are TFDS datasets."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_datasets as tfds

from keras_mobilenets.data.pipeline import Part


def prepared_source(
    builder: tfds.core.DatasetBuilder,
) -> tuple[dict[str, Part], tuple[str, ...]]:
    """The parts train, validation, test of a prepared builder, and its classes."""
    features = builder.info.features
    parts = {name: _part(builder, name) for name in ("train", "validation", "test")}
    return parts, tuple(features["label"].names)


def _part(builder: tfds.core.DatasetBuilder, split: str) -> Part:
    shape = builder.info.features["image"].shape
    examples = builder.as_dataset(
        split=split,
        shuffle_files=False,
        read_config=tfds.ReadConfig(try_autocache=False),
    ).map(lambda example: (example["image"], example["label"]))
    return Part(
        examples,
        builder.info.splits[split].num_examples,
        shape[0] * shape[1] * shape[2],
        tf.identity,
    )
