"""Weights in: from keras.applications, from files, from other models' lists."""

from __future__ import annotations

import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import h5py
import keras
import numpy as np

from keras_mobilenets.architecture.arguments import shown
from keras_mobilenets.errors import UsageError

# What keras.applications publishes (keras/src/applications/mobilenet*.py).
IMAGENET_ALPHAS = {
    "mobilenet_v1": (0.25, 0.5, 0.75, 1.0),
    "mobilenet_v2": (0.35, 0.5, 0.75, 1.0, 1.3, 1.4),
}
IMAGENET_RESOLUTIONS = {
    "mobilenet_v1": (128, 160, 192, 224),
    "mobilenet_v2": (96, 128, 160, 192, 224),
}


def copy_weights(model: keras.Model, weights: Sequence[np.ndarray]) -> None:
    """Set a weight list in `get_weights()` order on `model`, all or nothing.

    Takes lists of this package and of keras.applications; V1's 1x1 convolution
    classifier [1, 1, C, K] there becomes the Dense kernel [C, K] here.

    Raises:
        UsageError: another number of tensors, another shape, or values that are not
            finite numbers; names the first.
    """
    if len(weights) != len(model.weights):
        raise UsageError(
            f"weights must hold the {len(model.weights)} tensors of {model.name}; "
            f"got {len(weights)}: they belong to another architecture"
        )
    fitted = []
    for variable, value in zip(model.weights, weights, strict=True):
        value = np.asarray(value)
        if value.shape == (1, 1, *variable.shape):
            value = value.reshape(variable.shape)
        if value.shape != tuple(variable.shape):
            raise UsageError(
                f"weights for {variable.path} must have shape "
                f"{tuple(variable.shape)}; got {value.shape}: they belong to another "
                "architecture, alpha or number of classes"
            )
        try:
            finite = np.isfinite(value.astype("float64")).all()
        except (TypeError, ValueError):
            finite = False
        if not finite:
            raise UsageError(
                f"weights for {variable.path} must be finite numbers; got NaN, "
                "infinity or no numbers at all: the run that made them diverged, or "
                "the file is damaged"
            )
        fitted.append(value)
    model.set_weights(fitted)


def _stored_tensors(path: pathlib.Path) -> int:
    """How many model tensors a `.weights.h5` file holds."""
    count = 0

    def visit(name: str, item: h5py.HLObject) -> None:
        nonlocal count
        foreign = name.startswith("optimizer") or "seed_generator" in name
        count += isinstance(item, h5py.Dataset) and not foreign

    with h5py.File(path) as file:
        file.visititems(visit)
    return count


def check_weights_file(path: Any) -> pathlib.Path:
    """The path of a weights file, which exists and has the name of one.

    Raises:
        UsageError: it does not, or `path` is no path.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise UsageError(
            f'weights must be None, "imagenet" or the path of a file; got {shown(path)}'
        )
    file = pathlib.Path(path)
    if not os.path.isfile(file):
        raise UsageError(
            f'weights must be None, "imagenet" or the path of an existing .keras or '
            f".weights.h5 file; got {str(path)!r}, which is not a file"
        )
    if not file.name.endswith((".keras", ".weights.h5")):
        raise UsageError(
            f"weights must be a .keras or .weights.h5 file; got {str(path)!r}: save "
            "with model.save() or model.save_weights()"
        )
    return file


def load_weights(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Load a `.keras` or `.weights.h5` file of the same architecture.

    Raises:
        UsageError: the file is missing, of an unknown kind, unreadable, of
            another architecture, alpha or number of classes, or holds values that are
            not finite.
    """
    file = check_weights_file(path)
    try:
        if file.suffix == ".keras":
            saved = keras.saving.load_model(file, compile=False).get_weights()
        else:
            if _stored_tensors(file) != len(model.weights):
                raise UsageError(
                    f"it holds {_stored_tensors(file)} tensors, the model has "
                    f"{len(model.weights)}"
                )
            # Not clone_model, which would compile the copy too.
            donor = type(model).from_config(model.get_config())
            with warnings.catch_warnings():
                # Keras looks for its own bookkeeping in the file too, in vain.
                warnings.filterwarnings("ignore", "Skipping nested container")
                donor.load_weights(file)
            saved = donor.get_weights()
        copy_weights(model, saved)
    except Exception as error:  # of zip, HDF5, JSON or Keras, as the damage has it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"weights file {str(path)!r} does not fit {model.name}: {reason} "
            "(name, alpha, classes, include_top and variant must be those it was "
            "saved with)"
        ) from error


def imagenet_weights(
    name: str,
    classes: int,
    variant: dict[str, Any],
    *,
    alpha: float,
    resolution: int,
    include_top: bool,
) -> list[np.ndarray]:
    """keras.applications' ImageNet weights, downloaded and cached by Keras.

    Where the resolution has no weights of its own, those of 224 pixels are taken.

    Raises:
        ValueError: none are published for this network, or the download failed.
    """
    if alpha not in IMAGENET_ALPHAS[name]:
        raise UsageError(
            f'weights="imagenet" for {name} exist at alpha '
            f"{', '.join(map(str, IMAGENET_ALPHAS[name]))}; got alpha={alpha!r}"
        )
    if include_top and classes != 1000:
        raise UsageError(
            'weights="imagenet" have 1000 classes; got '
            f"classes={classes!r}: use include_top=False and add your own classifier"
        )
    changed = sorted(set(variant) - {"output_stride"})
    if changed:
        raise UsageError(
            'weights="imagenet" were trained on the network as published; got '
            f"{', '.join(f'{k}={variant[k]!r}' for k in changed)}: leave it out or "
            "train from scratch"
        )
    published = resolution if resolution in IMAGENET_RESOLUTIONS[name] else 224
    network = {
        "mobilenet_v1": keras.applications.MobileNet,
        "mobilenet_v2": keras.applications.MobileNetV2,
    }[name]
    layout = keras.config.image_data_format()
    try:
        keras.config.set_image_data_format("channels_last")  # of the shape below
        return network(
            input_shape=(published, published, 3),
            alpha=alpha,
            include_top=include_top,
            weights="imagenet",
        ).get_weights()
    except Exception as error:  # get_file raises a bare Exception
        raise UsageError(
            f'weights="imagenet" could not be downloaded ({error}); give the path of '
            "a weights file, or weights=None"
        ) from error
    finally:
        keras.config.set_image_data_format(layout)
