"""Sources that are TFDS datasets."""

from __future__ import annotations

import difflib
import functools
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_mobilenets.data.decoding import decode
from keras_mobilenets.data.fashion import has_fashion_mnist, prepared_fashion_mnist
from keras_mobilenets.data.features import USUAL, Chosen, Pair, find_pair
from keras_mobilenets.data.parts import MEMORY_BUDGET, PARTS, Part, Shards, Source
from keras_mobilenets.data.preprocessing import Box, cropped
from keras_mobilenets.errors import UsageError
from keras_mobilenets.given import FORMS


def find_builder(
    name: str, data_dir: str | os.PathLike | None = None
) -> tfds.core.DatasetBuilder:
    """The builder that TFDS knows as `name`, downloaded and prepared if need be.

    `data_dir` is TFDS's; None means its default. UsageError if TFDS has no such
    dataset, or if it cannot be prepared.

    >>> find_builder("oxford_flowers102").info.splits["train"].num_examples
    1020
    """
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise UsageError(_unknown(name)) from error
    except ValueError as error:  # not of the form name/config:version, or no config
        reason = str(error).splitlines()[0]
        raise UsageError(f"source must be {FORMS}; got {name!r} ({reason})") from error
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
    return builder


def _in_debian(builder: tfds.core.DatasetBuilder) -> bool:
    return builder.info.name == "fashion_mnist" and has_fashion_mnist()


def _unknown(name: str) -> str:
    known = ["digits", *tfds.list_builders(with_community_datasets=False)]
    near = difflib.get_close_matches(name.split("/")[0], known, n=1, cutoff=0.5)
    return (
        f"source must be {FORMS}; got {name!r}, which TFDS "
        "does not know and which is no folder here"
        + (f"; did you mean {near[0]!r}?" if near else "")
    )


def builder_source(
    builder: tfds.core.DatasetBuilder,
    splits: Mapping[str, str] | None = None,
    memory: int = MEMORY_BUDGET,
    exif: bool = False,
    chosen: Chosen = USUAL,
) -> Source:
    """The source in a prepared builder.

    Splits keep their names. Where the dataset lacks some (a test split without
    labels, as ImageNet's, counts as lacking):

    - no validation and no test: the last two tenths of train, one for each;
    - no validation: the last tenth of train;
    - no test: the validation images are the test images.

    `splits` says otherwise, in TFDS's words: {"train": "train[:50%]"}. A split of
    at most `memory` bytes is kept in memory; of a larger one, `memory` is that of the
    shuffle buffer. `exif` turns images as their EXIF orientation says. `chosen` are
    the features that are the image and the label, as `features.find_pair` has them.

    UsageError if the dataset has no `train` split or no such features.
    """
    name, pair = builder.info.name, find_pair(builder.info, chosen)
    has = builder.info.splits
    if "train" not in has:
        raise UsageError(
            f"source must have a train split; TFDS's {name!r} has {', '.join(has)}"
        )
    validation = next((n for n in ("validation", "valid", "val") if n in has), None)
    test = "test" if "test" in has and _labelled(builder, pair, "test") else None
    if validation:
        usual = ("train", validation, test or validation)
    elif test:
        usual = ("train[:90%]", "train[90%:]", test)
    else:
        usual = ("train[:80%]", "train[80%:90%]", "train[90%:]")
    named = {**dict(zip(PARTS, usual, strict=True)), **(splits or {})}
    parts = {part: _part(builder, pair, named[part], memory, exif) for part in PARTS}
    return Source(
        **parts,
        classes=pair.classes,
        describe=lambda: _describe(builder, named, pair),
        label_sets=None,
    )


def indexed_builder_source(
    builder: tfds.core.DatasetBuilder,
    index: dict[str, Any],
    splits: Mapping[str, str] | None = None,
    memory: int = MEMORY_BUDGET,
    exif: bool = False,
    chosen: Chosen = USUAL,
) -> Source:
    """The source in a prepared builder with the splits of an index.

    UsageError if the dataset is no longer what it was when the index was written.
    """
    before = index["parts"]
    stored = {part: before[part]["split"] for part in PARTS}
    if splits and {**stored, **splits} != stored:
        raise UsageError(
            f"index {index['file']!r} is of the splits {stored}; got {dict(splits)}"
        )
    source = builder_source(builder, stored, memory, exif, chosen)
    now = json.loads(json.dumps(source.describe()))
    index = {"image": "image", "label": "label", **index}  # an older one has no others
    for key in ("name", "data_dir", "image", "label", "classes"):
        if now[key] != index[key]:
            raise UsageError(
                f"index {index['file']!r} is of a TFDS dataset whose {key} is "
                f"{_shortened(index[key])}; got {_shortened(now[key])}"
            )
    for part in PARTS:
        if now["parts"][part] != before[part]:
            raise UsageError(
                f"index {index['file']!r} is of {index['name']!r} with "
                f"{_shortened(before[part])} for {part}; got "
                f"{_shortened(now['parts'][part])}: the dataset has been prepared "
                "anew, or the index is damaged"
            )
    return source


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _describe(
    builder: tfds.core.DatasetBuilder, splits: Mapping[str, str], pair: Pair
) -> dict[str, Any]:
    """Which examples these are: see `data.index`."""
    return {
        "kind": "tfds",
        "name": builder.info.full_name,  # NAME/CONFIG/VERSION
        "data_dir": _absolute(builder.data_path.parents[_depth(builder)]),
        "image": pair.image,
        "label": pair.label,
        "classes": list(pair.classes),
        "parts": {
            part: {
                "split": split,
                "examples": builder.info.splits[split].num_examples,
                "shards": [rows.take for rows in _instructions(builder, split)],
            }
            for part, split in splits.items()
        },
    }


def _absolute(path: os.PathLike) -> str:
    name = os.fspath(path)
    return name if "://" in name else os.path.abspath(name)  # gs://bucket/folder


def _depth(builder: tfds.core.DatasetBuilder) -> int:
    """How deep data_path lies below data_dir, less one: NAME/VERSION is 1."""
    return builder.info.full_name.count("/")


def _instructions(builder: tfds.core.DatasetBuilder, split: str) -> list[Any]:
    """The files of a split: the name of each, what to skip, and what to take."""
    return [rows for rows in builder.info.splits[split].file_instructions if rows.take]


def _labelled(builder: tfds.core.DatasetBuilder, pair: Pair, split: str) -> bool:
    examples = builder.as_dataset(
        split=f"{split}[:1]", decoders=pair.decoders(tfds.decode.SkipDecoding())
    )
    return all(int(pair.of(example)[1]) >= 0 for example in examples)


def _part(
    builder: tfds.core.DatasetBuilder, pair: Pair, split: str, memory: int, exif: bool
) -> Part:
    """A split: kept as pixels where all of it fits in memory, else as encoded."""
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
    info, (image, _) = builder.info, pair.of(builder.info.features)
    pixels = tf.TensorShape(image.shape).num_elements()  # None where sizes differ
    if image.encoding_format == "jpeg":
        pixels = None  # they may have to be turned
    decoded = pixels is not None and count * pixels <= memory
    whole = info.splits[split.split("[")[0].split("+")[0].strip()]
    size = pixels if decoded else max(1, whole.num_bytes // whole.num_examples)
    decoders = None if decoded else pair.decoders(tfds.decode.SkipDecoding())

    def pair_of(example: dict[str, Any]) -> tuple[tf.Tensor, tf.Tensor]:
        return pair.of(example)

    def examples() -> tf.data.Dataset:
        return builder.as_dataset(
            split=split,
            shuffle_files=False,  # the pipeline shuffles
            decoders=decoders,
            read_config=tfds.ReadConfig(
                try_autocache=False,  # the pipeline caches
                interleave_cycle_length=1,  # one file after another, as `shards`
            ),
        ).map(pair_of)

    shards = None
    if count * size > memory:
        if info.file_format != tfds.core.FileFormat.TFRECORD:
            raise UsageError(
                f"source {info.name!r} is larger than memory_budget ({memory:,} bytes) "
                f"and stored as {info.file_format.value}; give it {count * size:,} "
                "bytes, or prepare it as tfrecord"
            )
        rows = _instructions(builder, split)
        names = [row.filename for row in rows]
        skipped = [row.skip for row in rows]

        def read(
            shard: tf.Tensor, first: tf.Tensor, count: tf.Tensor
        ) -> tf.data.Dataset:
            return (
                tf.data.TFRecordDataset(tf.gather(tf.constant(names), shard))
                .skip(tf.gather(tf.constant(skipped, tf.int64), shard) + first)
                .take(count)
                .map(lambda x: info.features.deserialize_example(x, decoders=decoders))
                .map(pair_of)
            )

        shards = Shards(tuple(row.take for row in rows), read)
    decode = _pixels if decoded else _decoder(image, exif)
    return Part(examples, count, decode, shards=shards, buffer=max(1, memory // size))


def _pixels(image: tf.Tensor, box: Box, alpha: bool) -> tf.Tensor:
    """The part that a box takes, with all the channels that are stored."""
    return cropped(image, box)


def _decoder(
    image: tfds.features.Image, exif: bool
) -> Callable[[tf.Tensor, Box, bool], tf.Tensor]:
    """From encoded images of a feature to the part of them that a box takes."""
    if image.dtype == np.uint8:
        exif = exif and image.encoding_format != "png"
        return functools.partial(decode, bmp=False, exif=exif)  # TFDS writes no BMP
    return lambda encoded, box, _: cropped(image.decode_example(encoded), box)
