"""What LiteRT makes of a network: its accuracy in int8, and its latency.

Both are for a process of their own: here TensorFlow starts.
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_mobilenets.data import Splits
from keras_mobilenets.deploy import export_model, read_classifier
from keras_mobilenets.deploy.pictures import FEWEST, pictures_of, take_pictures
from keras_mobilenets.errors import UsageError
from keras_mobilenets.models import build
from keras_mobilenets.tuning.points import Key

FILE = "model_int8.tflite"  # as `export` would call it; its report lies beside it


def check_enough(splits: Splits) -> None:
    """Raises UsageError where there are too few images to calibrate with."""
    if splits.num_train < FEWEST:
        raise UsageError(
            f"objective='int8_accuracy' needs at least {FEWEST} training images, to "
            f"measure ranges on; got {splits.num_train}"
        )


def measure_accuracy(
    model: keras.Model, splits: Splits, directory: pathlib.Path
) -> float:
    """The accuracy, on all validation images, of a network's int8 file.

    The file stays in `directory`, with a report on it, in the place of an earlier one.
    Training images calibrate it; the test split is not looked at. A file that says
    something else than the network is measured all the same: that is the question.

    Raises:
        ExportFailed: the file says NaN.
    """
    pattern = f"{pathlib.Path(FILE).stem}*.tflite*"
    for before in directory.glob(pattern):  # of a lower rung, or of a killed trial
        before.unlink()
    file = directory / FILE
    export_model(
        model,
        file,
        quantization="int8",
        calibration=pictures_of(splits, "validation"),
        may_disagree=True,
    )
    classify = read_classifier(file).classify
    right: list[np.ndarray] = []
    for images, labels in splits.validation.as_numpy_iterator():
        right.append(classify(images)[0].argmax(-1) == labels)
    return float(np.concatenate(right).mean())  # files that broke are not among them


def measure_latency(
    key: Key, classes: int, variant: Mapping[str, Any], quantization: str | None
) -> float:
    """Milliseconds (a median) that the file of such a network takes for one image.

    In one thread of this machine. Weights are random, and every batch norm has the
    statistics of its input, so that numbers are neither lost nor subnormal.
    """
    name, alpha, resolution = key
    model = build(name, alpha=alpha, resolution=resolution, classes=classes, **variant)
    pictures = take_pictures(None, model.input_shape[1:])
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(np.array(pictures.proof[:8]), training=True)
    with tempfile.TemporaryDirectory() as folder:
        report = export_model(
            model,
            pathlib.Path(folder, "model.tflite"),
            quantization=quantization,
            calibration=pictures._replace(calibration=pictures.proof),
            bias_correction=False,
            may_disagree=True,
        )
    return report["latency"]["median_ms"]
