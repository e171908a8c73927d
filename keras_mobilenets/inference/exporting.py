"""`export`: a model, or that of a finished run, as a file for a device."""

from __future__ import annotations

import os
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_mobilenets.architecture.arguments import check_flag, shown
from keras_mobilenets.data import Splits, load_data
from keras_mobilenets.deploy import KINDS, check_new_file, export_model
from keras_mobilenets.errors import UsageError
from keras_mobilenets.inference.quantizing import LEARNING_RATE, check_options
from keras_mobilenets.inference.quantizing import fine_tune as fine_tune_model
from keras_mobilenets.inference.run_data import load_run_data
from keras_mobilenets.training.measuring import load_run_model
from keras_mobilenets.training.workdir import find_finished, read_report


def export(
    model: keras.Model | str | os.PathLike[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    *,
    quantization: str | None = None,
    calibration: Any = None,
    labels: Sequence[str] | None = None,
    input: str = "float32",
    bias_correction: bool = True,
    fine_tune: int | None = None,
    learning_rate: float | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    verbose: bool = True,
) -> dict[str, Any]:
    """Write a trained network for LiteRT, ONNX or TensorFlow, proven before it counts.

    By the suffix of `path`: a `.tflite` file; an `.onnx` file, with the optional extra
    "onnx"; a SavedModel folder where there is none. Each has one signature, "classify":
    image -> logits, probabilities. Batch norm is folded, a network under mixed
    precision becomes float32, and only the operations of a MobileNet are in it. The
    classes go with it (labels.txt): in a zip behind a .tflite file, in the metadata of
    an .onnx file, in `assets.extra` of a folder. Its own runtime runs it at once, and
    it is compared with Keras on up to 500 images of the test split; below an agreement
    of 99.9 % (float32), 99 % (float16) or 90 % (8 bits), on the images that Keras is
    over 0.5 sure of, it does not count: it is kept under another name. See
    `docs/deploy.md`.

    Args:
        model: a Keras model that classifies images; or the directory of a finished run,
            by default the newest in `runs`.
        path: a new file that ends in .tflite or .onnx, or a new folder without a
            suffix; the report is written beside it, as PATH.json. Of a run by default a
            .tflite file in its directory.
        quantization: None (float32); of a .tflite file also "float16" (half the size),
            "dynamic" (a quarter; slow), "int8" (a quarter, and the fastest) or
            "int16x8".
        calibration: images on which int8 and int16x8 measure ranges, and all kinds are
            proven: `Splits` of `load_data`, whose training images calibrate and whose
            test split proves; or a dataset of batches, or an array, of images in
            [-1, 1]. Of a run also any source of `load_data`; by default its own data.
            Without any, int8 and int16x8 are refused; others are proven on pictures
            that are made up, and so is int8 of a model of `km.fine_tune_quantized`,
            which has its ranges.
        labels: names of the classes, in order; by default those of the run or of
            `Splits`, or their numbers.
        input: "float32", images in [-1, 1]; or "uint8", pixels, scaled by the file.
        bias_correction: of int8 and int16x8: make up for what rounding kernels shifts.
        fine_tune: of int8: epochs of `km.fine_tune_quantized` before, on the training
            images of `calibration`, which are to be `Splits`, or of the run.
        learning_rate: of these (default 1e-3).
        data_dir: where TFDS keeps its prepared data; of a run.
        verbose: show the progress of `fine_tune`.

    Returns:
        What the file is worth, ready for JSON: "bytes", "operations", "calibration",
        "fine_tuning" (figures of the validation split), "proof" (agreement, errors of
        logits, accuracy), "latency" and more.

    Raises:
        UsageError: an argument is impossible, the path exists, the model is none that
            can be exported, or images to calibrate with cannot be right.
        ExportFailed: the file does not say what the model says.

    >>> export("runs/digits-1", quantization="int8")["proof"]["agreement"]
    1.0
    """
    check_flag("verbose", verbose)
    _check_fine_tuning(quantization, fine_tune, learning_rate)
    options: dict[str, Any] = {
        "quantization": quantization,
        "input": input,
        "bias_correction": bias_correction,
    }
    if isinstance(model, keras.Model):
        if data_dir is not None:
            raise UsageError(
                "data_dir is for the model of a run; got it with a Keras model: give "
                "calibration=km.load_data(..., data_dir=...)"
            )
        file = check_new_file(path, quantization)
        if fine_tune is not None:
            model, options["fine_tuning"] = _fine_tuned(
                model, calibration, fine_tune, learning_rate, verbose
            )
        return export_model(
            model, file, calibration=calibration, labels=labels, **options
        )
    if model is not None and not isinstance(model, (str, os.PathLike)):
        raise UsageError(
            f"model must be a Keras model or the directory of a run; got {shown(model)}"
        )
    directory = find_finished(model)
    if path is None:
        path = (
            directory / f"model{'_' if quantization else ''}{quantization or ''}.tflite"
        )
    file = check_new_file(path, quantization)
    settings, stored = read_report(directory)
    images = calibration
    if calibration is None:
        images = _own_data(directory, settings, stored, data_dir, quantization)
    elif isinstance(calibration, (str, os.PathLike)):
        images = load_data(
            calibration,
            resolution=settings.resolution,
            channels=settings.channels,
            recipe=settings.recipe,
            seed=settings.seed,
            data_dir=settings.data_dir if data_dir is None else data_dir,
        )
    model = load_run_model(directory, len(stored["classes"]))
    if fine_tune is not None:
        model, options["fine_tuning"] = _fine_tuned(
            model, images, fine_tune, learning_rate, verbose
        )
    return export_model(
        model,
        file,
        calibration=images,
        labels=stored["classes"] if labels is None else labels,
        recipe=settings.recipe,
        **options,
    )


def _check_fine_tuning(
    quantization: str | None, fine_tune: Any, learning_rate: Any
) -> None:
    if fine_tune is None and learning_rate is not None:
        raise UsageError(
            f"learning_rate is that of fine_tune; got {shown(learning_rate)} without: "
            "give fine_tune, the number of epochs"
        )
    if fine_tune is None:
        return
    if quantization != "int8":
        raise UsageError(
            f"fine_tune is for quantization='int8'; got {shown(fine_tune)} with "
            f"{quantization!r}"
        )
    rate = LEARNING_RATE if learning_rate is None else learning_rate
    check_options("fine_tune", fine_tune, rate)


def _fine_tuned(
    model: keras.Model,
    splits: Any,
    epochs: int,
    learning_rate: float | None,
    verbose: bool,
) -> tuple[keras.Model, dict[str, Any]]:
    if not isinstance(splits, Splits):
        raise UsageError(
            "calibration must be Splits of km.load_data for fine_tune, which learns "
            f"from their training images; got {shown(splits)}"
        )
    rate = LEARNING_RATE if learning_rate is None else learning_rate
    return fine_tune_model(model, splits, epochs, rate, verbose, "calibration")


def _own_data(
    directory: pathlib.Path,
    settings: Any,
    stored: Mapping[str, Any],
    data_dir: Any,
    quantization: str | None,
) -> Splits | None:
    """The run's own data; where they are gone, none if the file can do without."""
    try:
        return load_run_data(directory, settings, stored, data_dir=data_dir)[1]
    except UsageError as error:
        if KINDS[quantization].activation_bits:
            raise UsageError(
                f"calibration must be given where the run's own data cannot be had: "
                f"{error}"
            ) from error
        warnings.warn(
            f"the file is proven on pictures made up, not on the run's own: {error}",
            stacklevel=3,
        )
        return None
