"""The images that a file is calibrated and proven on, checked."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from keras_mobilenets.architecture.arguments import shown
from keras_mobilenets.architecture.shapes import sides
from keras_mobilenets.data import Splits
from keras_mobilenets.errors import UsageError
from keras_mobilenets.recipe import Recipe

CALIBRATION = 128  # images at most
PROOF = 500
FEWEST = 32  # images to calibrate with
HALF_THE_RANGE = 1.05  # of [-1, 1], and a little: images in [0, 1] have 1


class Pictures(NamedTuple):
    """Images, float32 [n, height, width, channels] in [-1, 1], and where they are from.

    `labels`, int64 [n], are those of the proof. `recipe` is how they were prepared.
    """

    calibration: np.ndarray
    proof: np.ndarray
    labels: np.ndarray | None
    source: str
    recipe: Recipe | None = None
    classes: tuple[str, ...] | None = None


def take_pictures(given: Any, shape: tuple[int, int, int]) -> Pictures:
    """Images out of what was given as `calibration`.

    Of `Splits`, calibration takes training images and the proof those of the test
    split, evenly from the first to the last, so that all classes are among them. Of a
    dataset of batches, or an array, the first serve for both. Of nothing there are
    pictures made up, for the proof. `Pictures` are taken as they are.

    Raises:
        UsageError: they are not those of the network, or not scaled to [-1, 1].
    """
    if given is None:
        return _made_up(shape)
    if isinstance(given, Pictures):
        return given
    if isinstance(given, Splits):
        has = (*sides(given.resolution), given.channels)
        if has != tuple(shape):
            raise UsageError(
                f"calibration must have the model's images {tuple(shape)}; got Splits "
                f"of {has}: km.load_data(..., resolution=, channels=) makes them"
            )
        return pictures_of(given)
    return _of_batches(given, shape)


def check_calibration(pictures: Pictures, quantization: str) -> None:
    """Ranges that are measured on these images will be those of the device.

    Raises:
        UsageError: there are none, or too few, or they cannot be images in [-1, 1].
    """
    if not len(pictures.calibration):
        raise UsageError(
            f"calibration must be given for {quantization}: km.load_data(...), or a "
            "dataset of batches of images in [-1, 1]; got None"
        )
    check_ranges("calibration", pictures.calibration, pictures.recipe is not None)


def check_ranges(argument: str, images: np.ndarray, prepared: bool) -> None:
    """The same of images that were given; those that were `prepared` here may be dark.

    Raises:
        UsageError: they are too few, or cannot be images in [-1, 1].
    """
    if len(images) < FEWEST:
        raise UsageError(
            f"{argument} must have at least {FEWEST} images; got {len(images)}"
        )
    low, high = float(images.min()), float(images.max())
    if high - low <= HALF_THE_RANGE:
        problem = (
            f"{argument} must be images as the network was trained on, scaled to "
            f"[-1, 1]; got numbers from {low:.3g} to {high:.3g} only"
        )
        if not prepared:
            raise UsageError(problem)
        warnings.warn(problem, stacklevel=4)


def _evenly(count: int, most: int) -> list[int]:
    """Numbers below `count`, `most` of them, from the first to the last."""
    return (
        np.unique(np.linspace(0, count - 1, min(count, most)).round())
        .astype(int)
        .tolist()
    )


def training_images(splits: Splits) -> np.ndarray:
    """Those that calibrate, evenly from the first to the last.

    >>> training_images(load_data("digits", resolution=48)).shape
    (128, 48, 48, 3)
    """
    return np.stack(splits.images("train", _evenly(splits.num_train, CALIBRATION)))


def pictures_of(splits: Splits, proof: str = "test") -> Pictures:
    """Training images to calibrate with, and those of another split for the proof."""
    seen = _evenly(splits.counts[proof], PROOF)
    labels = None  # whether the best of several is right says little
    if not splits.multi_label:
        labels = np.array(splits.labels(proof, seen), "int64")
    split = "validation" if splits.test_is_validation else proof
    return Pictures(
        training_images(splits),
        np.stack(splits.images(proof, seen)),
        labels,
        f"{splits.source} ({split} split)",
        splits.recipe,
        splits.classes,
    )


def _of_batches(given: Any, shape: tuple[int, int, int]) -> Pictures:
    """The first images of a dataset, with their labels if there are any."""
    what = (
        "calibration must be Splits of km.load_data, an array of images, or a dataset "
        f"of batches of images or (images, labels), [n, {', '.join(map(str, shape))}]"
    )
    batches = given
    if isinstance(given, np.ndarray):
        batches = [given]
    if isinstance(given, (str, bytes, dict)) or not isinstance(batches, Iterable):
        raise UsageError(f"{what}; got {shown(given)}")
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for batch in batches:
        parts = batch if isinstance(batch, (tuple, list)) else (batch,)
        image = np.asarray(parts[0])
        if image.shape[1:] != tuple(shape) or image.dtype.kind not in "fiu":
            raise UsageError(f"{what}; got {image.dtype} {image.shape}")
        images.append(image)
        if len(parts) > 1:
            labels.append(np.asarray(parts[1]))
        if sum(map(len, images)) >= CALIBRATION:
            break
    if not images:
        raise UsageError(f"{what}; got none")
    taken = np.concatenate(images)[:CALIBRATION].astype("float32")
    low, high = float(taken.min()), float(taken.max())
    if not (low >= -1.001 and high <= 1.001):  # NaN too
        raise UsageError(
            "calibration must be images scaled to [-1, 1], as the network takes them; "
            f"got numbers from {low:.3g} to {high:.3g}: of pixels, images / 127.5 - 1"
        )
    known = np.concatenate(labels)[:CALIBRATION] if labels else None
    if known is not None and (known.ndim != 1 or known.dtype.kind not in "iu"):
        known = None  # of another kind than numbers of classes
    return Pictures(taken, taken, known, f"the {len(taken)} of calibration")


def _made_up(shape: tuple[int, int, int], count: int = 32) -> Pictures:
    """Smooth pictures without a meaning, the same every time."""
    height, width, channels = shape
    rng = np.random.default_rng(0)
    y, x = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None]
    pictures = np.zeros((count, height, width, channels))
    for picture, channel in itertools.product(range(count), range(channels)):
        for _ in range(8):
            down, right, phase = rng.normal(0, 12), rng.normal(0, 12), rng.uniform(0, 7)
            wave = np.sin(down * y + right * x + phase)
            pictures[picture, :, :, channel] += rng.normal() * wave
    largest = np.abs(pictures).max(axis=(1, 2, 3), keepdims=True)
    nothing = np.zeros((0, *shape), "float32")
    proof = (pictures / largest).astype("float32")
    return Pictures(nothing, proof, None, f"{count} made up")
