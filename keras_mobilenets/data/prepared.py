"""Sources that are TFDS datasets."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_mobilenets.data.fashion import has_fashion_mnist, prepared_fashion_mnist
from keras_mobilenets.data.images import decode
from keras_mobilenets.data.pipeline import MEMORY_BUDGET, PARTS, Part, Source
from keras_mobilenets.data.preprocessing import Box, cropped
from keras_mobilenets.errors import UsageError


def tfds_source(
    name: str,
    data_dir: str | os.PathLike | None = None,
    splits: Mapping[str, str] | None = None,
    memory: int = MEMORY_BUDGET,
) -> Source:
    """The source that TFDS knows as `name`, downloaded and prepared if need be.

    `data_dir` is TFDS's; None means its default. `splits` and `memory`: as in
    `builder_source`. ValueError if TFDS has no such dataset, if it cannot be
    prepared, or if it does not classify images.

    >>> tfds_source("oxford_flowers102").classes[0]
    'pink primrose'
    """
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise UsageError(_unknown(name)) from error
    except ValueError as error:  # not of the form name/config:version, or no config
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"source must be 'digits', a TFDS name or a folder; got {name!r} ({reason})"
        ) from error
    if not builder.is_prepared() and _in_debian(builder):
        builder = prepared_fashion_mnist(data_dir)
    if not builder.is_prepared():
        try:
            builder.download_and_prepare()
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UsageError(
                f"source {name!r} is not prepared in {str(builder.data_path)!r} and "
                f"could not be ({type(error).__name__}: {reason}); run `tfds build "
                f"{name}` where its data can be had, then give that data_dir"
            ) from error
    return builder_source(builder, splits, memory)


def _in_debian(builder: tfds.core.DatasetBuilder) -> bool:
    return builder.info.name == "fashion_mnist" and has_fashion_mnist()


def _unknown(name: str) -> str:
    known = ["digits", *tfds.list_builders(with_community_datasets=False)]
    near = difflib.get_close_matches(name.split("/")[0], known, n=1, cutoff=0.5)
    return (
        f"source must be 'digits', a TFDS name or a folder; got {name!r}, which TFDS "
        "does not know and which is no folder here"
        + (f"; did you mean {near[0]!r}?" if near else "")
    )


def builder_source(
    builder: tfds.core.DatasetBuilder,
    splits: Mapping[str, str] | None = None,
    memory: int = MEMORY_BUDGET,
) -> Source:
    """The source in a prepared builder.

    Splits keep their names. Where the dataset lacks some (a test split without
    labels, as ImageNet's, counts as lacking):

    - no validation and no test: the last two tenths of train, one for each;
    - no validation: the last tenth of train;
    - no test: the validation images are the test images.

    `splits` says otherwise, in TFDS's words: {"train": "train[:50%]"}. A split of
    no more than `memory` bytes of pixels is stored as pixels. ValueError if the
    dataset has no `train` split or no `image` and `label`.
    """
    name, features = builder.info.name, dict(builder.info.features.items())
    image, label = (features.get(key) for key in ("image", "label"))
    if not (
        isinstance(image, tfds.features.Image)
        and isinstance(label, tfds.features.ClassLabel)
    ):
        raise UsageError(
            "source must have an image and a class label for each example; TFDS's "
            f"{name!r} has {', '.join(features)}"
        )
    has = builder.info.splits
    if "train" not in has:
        raise UsageError(
            f"source must have a train split; TFDS's {name!r} has {', '.join(has)}"
        )
    validation = next((n for n in ("validation", "valid", "val") if n in has), None)
    test = "test" if "test" in has and _labelled(builder, "test") else None
    if validation:
        chosen = ("train", validation, test or validation)
    elif test:
        chosen = ("train[:90%]", "train[90%:]", test)
    else:
        chosen = ("train[:80%]", "train[80%:90%]", "train[90%:]")
    named = {**dict(zip(PARTS, chosen, strict=True)), **(splits or {})}
    parts = (_part(builder, named[part], memory) for part in PARTS)
    return Source(*parts, tuple(label.names))


def _labelled(builder: tfds.core.DatasetBuilder, split: str) -> bool:
    examples = builder.as_dataset(
        split=f"{split}[:1]", decoders={"image": tfds.decode.SkipDecoding()}
    )
    return all(int(example["label"]) >= 0 for example in examples)


def _part(builder: tfds.core.DatasetBuilder, split: str, memory: int) -> Part:
    """A split: stored as pixels where all of it fits in memory, else as encoded."""
    try:
        count = builder.info.splits[split].num_examples
    except (KeyError, ValueError, AssertionError) as error:
        raise UsageError(
            f"splits must name splits of TFDS's {builder.info.name!r} "
            f"({', '.join(builder.info.splits)}) or slices of them, such as "
            f"'train[:50%]'; got {split!r}"
        ) from error
    if not count:
        raise UsageError(
            f"source must have images in every split; TFDS's {builder.info.name!r} "
            f"has none in {split}"
        )
    image = builder.info.features["image"]
    pixels = tf.TensorShape(image.shape).num_elements()  # None where sizes differ
    decoded = pixels is not None and count * pixels <= memory
    whole = builder.info.splits[split.split("[")[0].strip()]

    def examples(split: str | tfds.core.splits.AbstractSplit) -> tf.data.Dataset:
        return builder.as_dataset(
            split=split,
            shuffle_files=False,  # the pipeline shuffles
            decoders=None if decoded else {"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(try_autocache=False),  # the pipeline caches
        ).map(lambda example: (example["image"], example["label"]))

    def portion(number: int, of: int) -> tf.data.Dataset:
        return examples(tfds.even_splits(split, of)[number])

    return Part(
        examples(split),
        count,
        pixels if decoded else max(1, whole.num_bytes // whole.num_examples),
        cropped if decoded else _decoder(image),
        portion=None if "+" in split else portion,  # TFDS would cut each summand
    )


def _decoder(image: tfds.features.Image) -> Callable[[tf.Tensor, Box], tf.Tensor]:
    """From encoded images of a feature to the part of them that a box takes."""
    if image.dtype == np.uint8:
        return functools.partial(decode, bmp=False)  # TFDS writes PNG and JPEG
    return lambda encoded, box: cropped(image.decode_example(encoded), box)
