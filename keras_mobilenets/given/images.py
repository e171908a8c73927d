"""Images in memory: arrays of NumPy, and datasets of TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keras_mobilenets.architecture.arguments import shown
from keras_mobilenets.errors import UsageError
from keras_mobilenets.given.labels import (
    Label,
    check_label,
    check_labels,
    check_multi_hot,
)

if TYPE_CHECKING:  # NumPy takes a tenth of a second, and `cost` does without
    import numpy as np


Read = tuple[list[Label], Any, int | None]  # labels, images, columns of labels


def read_arrays(value: Any, where: str) -> Read:
    """What is in (images, labels)."""
    if len(value) != 2:
        raise UsageError(
            f"{where} must be two arrays, (images, labels); got {len(value)}"
        )
    images, labels = value
    _check_values(images.dtype.name, where)
    if images.ndim not in (3, 4):
        raise UsageError(
            f"images of {where} must be [n, height, width] or [n, height, width, "
            f"channels]; got the shape {images.shape}: use images.reshape(...)"
        )
    if not len(images):
        raise UsageError(f"{where} must have at least one image; got none")
    _check_shape(images.shape[1:], where)
    found, columns = check_labels(labels, where)
    if len(found) != len(images):
        raise UsageError(
            f"{where} must have a label for each image; got {len(images):,} images and "
            f"{len(found):,} labels"
        )
    return found, images, columns


def _check_values(name: str, where: str) -> None:
    """The type of images. Whether floats reach to 1 or to 255 is not guessed."""
    if name == "uint8":
        return
    fix = "images.astype('uint8') where they are whole numbers in 0..255"
    if name.startswith(("float", "bfloat")):
        fix = (
            "(images * 255).round().astype('uint8') where they are in 0..1, "
            "images.round().astype('uint8') where they are in 0..255"
        )
    raise UsageError(f"images of {where} must be uint8, 0..255; got {name}: give {fix}")


def _check_shape(shape: tuple[int, ...], where: str) -> None:
    """The shape of one image."""
    good = len(shape) in (2, 3) and all(shape)
    if not good or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        first = len(shape) == 3 and shape[0] in (1, 3, 4)
        fix = ": channels come last, np.moveaxis(images, -3, -1)" if first else ""
        raise UsageError(
            f"images of {where} must be [height, width], or [height, width, channels] "
            f"with 1, 3 or 4 channels; got the shape {tuple(shape)}{fix}"
        )


def read_dataset(dataset: Any, where: str, memory_budget: int) -> Read:
    """All examples of a dataset, which are read once."""
    _check_spec(dataset.element_spec, where)
    if int(dataset.cardinality()) == -1:  # tf.data.INFINITE_CARDINALITY
        raise UsageError(f"{where} must end; got an endless dataset: take(n) of it")
    labels: list[Label] = []
    images: list[np.ndarray] = []
    size = 0
    columns: int | None = None
    for image, label in dataset.as_numpy_iterator():
        number = len(images)
        _check_shape(image.shape, f"{where} (example {number})")
        size += image.nbytes
        if size > memory_budget:
            raise UsageError(
                f"{where} must fit in memory_budget ({memory_budget:,} bytes); got "
                f"more after {number:,} images: raise memory_budget, take(n) of it "
                "if it has no end, or write the images to class folders, which are "
                "read as they are needed"
            )
        if isinstance(label, bytes):
            try:
                label = label.decode()
            except UnicodeDecodeError as error:
                raise UsageError(
                    f"the label of example {number} of {where} must be UTF-8; got "
                    f"{shown(label)}"
                ) from error
        place = f"example {number} of {where}"
        if getattr(label, "ndim", 0):
            if columns not in (None, len(label)):
                raise UsageError(
                    f"the labels of {place} must be as many as those before, {columns};"
                    f" got {len(label)}"
                )
            columns = len(label)
            labels += check_multi_hot(label[None], place)
        else:
            labels.append(check_label(label, place))
        images.append(image)
    if not images:
        raise UsageError(f"{where} must have at least one image; got none")
    return labels, images, columns


def _check_spec(spec: Any, where: str) -> None:
    """What a dataset says of its examples, before any is read."""
    form = f"{where} must be a tf.data.Dataset of (image, label)"
    if isinstance(spec, Mapping):
        raise UsageError(
            f"{form}; got dicts of {', '.join(map(str, spec))}: "
            "map(lambda x: (x['image'], x['label'])) makes pairs"
        )
    parts = spec if isinstance(spec, tuple) else (spec,)
    if len(parts) != 2 or not all(map(_is_dense, parts)):
        raise UsageError(f"{form}; got {shown(spec)}")
    image, label = parts
    if image.dtype.name == "string":
        raise UsageError(
            f"{form}; got encoded images: map(lambda x, y: (tf.io.decode_image(x, "
            "expand_animations=False), y)) decodes them"
        )
    if image.shape.rank == 4:
        raise UsageError(f"{form}; got batches: unbatch() takes them apart")
    _check_values(image.dtype.name, where)
    if label.shape.rank == 1 and image.shape.rank == 3:
        if image.shape[2] not in (None, 1, 3, 4):  # grey ones
            raise UsageError(f"{form}; got batches: unbatch() takes them apart")
    if label.shape.rank == 1 and not (label.dtype.is_integer or label.dtype.is_bool):
        raise UsageError(
            f"{form}, the label one number or text, or a vector of whole numbers 0 and "
            f"1; got {label.dtype.name} of the shape {tuple(label.shape)}: "
            "tf.cast(label, tf.int64) if they are 0 and 1"
        )
    if label.shape.rank not in (0, 1):
        raise UsageError(
            f"{form}, the label one number or text, or a vector of 0 and 1; got labels "
            f"of the shape {label.shape}"
        )
    text_or_whole = label.dtype.is_integer or label.dtype.name == "string"
    if label.shape.rank == 0 and not text_or_whole:
        raise UsageError(
            f"{form}, the label a whole number or text; got {label.dtype.name}: "
            "tf.cast(label, tf.int64)"
        )


def _is_dense(spec: Any) -> bool:
    """Whether it is that of a plain tensor, neither ragged nor sparse nor nested."""
    return type(spec).__name__ == "TensorSpec"
