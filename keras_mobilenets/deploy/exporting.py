"""`export_model`: a Keras model as a file for a device, proven before it counts."""

from __future__ import annotations

import importlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets import storage
from keras_mobilenets.architecture.arguments import check_choice, check_flag, shown
from keras_mobilenets.deploy.classifier import describe
from keras_mobilenets.deploy.conversion import Kind, as_pixels, from_pixels
from keras_mobilenets.deploy.correction import corrected
from keras_mobilenets.deploy.formats import check_new_file, format_of, report_of
from keras_mobilenets.deploy.network import Network, network_of
from keras_mobilenets.deploy.pictures import (
    Pictures,
    check_calibration,
    take_pictures,
)
from keras_mobilenets.deploy.proof import THREADS, compare, judged, measure_latency
from keras_mobilenets.errors import ExportFailed, UsageError
from keras_mobilenets.recipe import Recipe

INPUTS = ("float32", "uint8")
LARGEST_HALF = 65504  # that float16 holds


def export_model(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    quantization: str | None = None,
    calibration: Any = None,
    labels: Sequence[str] | None = None,
    input: str = "float32",
    bias_correction: bool = True,
    recipe: Recipe | None = None,
    fine_tuning: dict[str, Any] | None = None,
    may_disagree: bool = False,
) -> dict[str, Any]:
    """Write a model as a file, and what it is worth as JSON beside it.

    As `km.export` says, which takes a run too. `recipe` is by which images are prepared
    for the model; by default that of `calibration`, if it says so. A file that
    `may_disagree` is written whatever its agreement, for that to be measured.
    `fine_tuning`, of the model to 8 bits, is for the report.
    """
    file = check_new_file(path, quantization)
    check_choice("input", input, INPUTS)
    check_flag("bias_correction", bias_correction)
    form = format_of(file)
    kind = form.kinds[quantization]
    if quantization == "int16x8" and input == "uint8":
        raise UsageError(
            "input='uint8' cannot be had with quantization='int16x8', for LiteRT does "
            "not scale pixels in 16 bits; take int8, or input='float32'"
        )
    if may_disagree:
        kind = kind._replace(least=0.0)
    network = network_of(model, may_be_quantized=True)
    calibrated = bool(kind.activation_bits)
    if network.is_fake_quantized:
        kind, calibrated = _as_fine_tuned(quantization, kind), False
    pictures = take_pictures(calibration, network.shape)
    names = _check_labels(labels, pictures, network.classes)
    if pictures.classes is not None and list(pictures.classes) != names:
        pictures = pictures._replace(labels=None)  # of other classes
    if quantization and calibrated:
        check_calibration(pictures, quantization)
    if kind.weights == tf.float16:
        _check_halves(network)
    converted = network
    if calibrated and bias_correction:
        assert kind.activation_bits is not None
        logits = corrected(network.logits, pictures.calibration, kind.activation_bits)
        converted = network._replace(logits=logits)
    about = describe(
        names, network.squashing, recipe or pictures.recipe, input, quantization
    )
    report: dict[str, Any] = {
        "file": file.name,
        "format": kind.text,
        "image": list(network.shape),
        **about,
        "calibration": _said_of(pictures, bias_correction) if calibrated else None,
        "fine_tuning": fine_tuning,
        "required_agreement": kind.least,
    }
    if input == "uint8":
        seen = from_pixels(as_pixels(pictures.proof))
        pictures = pictures._replace(proof=seen)
    with tempfile.TemporaryDirectory() as folder:
        made = pathlib.Path(folder, file.name)
        form.write(made, converted, about, pictures.calibration)
        classifier = form.read(made, THREADS)
        if network.is_fake_quantized:
            _check_whole(classifier.operations)
        report["bytes"] = _bytes_of(made)
        report["operations"] = classifier.operations
        report["batch"] = classifier.batch
        report["versions"] = {
            name: importlib.import_module(name).__version__
            for name in ("tensorflow", "keras", *form.modules)
        }
        try:
            report["proof"] = compare(model, network, classifier, pictures)
            report["latency"] = measure_latency(classifier, pictures.proof[0])
            _check_agreement(report["proof"], kind)
        except ExportFailed as failure:
            aside = _aside(file)
            report |= {"file": aside.name, "failed": str(failure)}
            _keep(made, aside, report)
            raise ExportFailed(f"{failure}. It was kept as {str(aside)!r}") from failure
        _keep(made, file, report)
    return report | {"path": str(file)}


def _check_labels(
    labels: Sequence[str] | None, pictures: Pictures, count: int
) -> list[str]:
    """The names of the classes, numbers where nobody knows them."""
    if labels is None:
        labels = pictures.classes or [str(number) for number in range(count)]
    wrong = isinstance(labels, (str, bytes)) or not isinstance(labels, Sequence)
    if wrong or not all(isinstance(name, str) for name in labels):
        raise UsageError(
            f"labels must be the names of the classes, in order; got {shown(labels)}"
        )
    if len(labels) != count:
        theirs = "" if labels is not pictures.classes else ", those of calibration"
        raise UsageError(
            f"labels must be the names of the {count} classes of the model, in order; "
            f"got {len(labels)}{theirs}"
        )
    return list(labels)


def _check_halves(network: Network) -> None:
    for weight in network.logits.weights:
        largest = float(np.abs(np.asarray(weight)).max(initial=0))
        if largest > LARGEST_HALF:
            raise UsageError(
                f"quantization='float16' holds numbers up to {LARGEST_HALF}; "
                f"{weight.path!r}, with its batch norm folded in, has {largest:.3g}: "
                "export in float32"
            )


def _as_fine_tuned(quantization: str | None, kind: Kind) -> Kind:
    """What int8 is of a model that has its ranges."""
    if quantization != "int8":
        raise UsageError(
            "quantization must be 'int8' for a model that was fine-tuned for it; got "
            f"{quantization!r}: export the model as it was before"
        )
    return kind._replace(instead='"float16", of the model as it was before')


def _check_whole(operations: dict[str, int]) -> None:
    """Nothing between the ends of a file is computed in float32, for want of a range.

    There are an input, and two outputs.
    """
    if operations.get("QUANTIZE", 0) > 1 or operations.get("DEQUANTIZE", 0) > 2:
        raise UsageError(
            "model must have the layers that km.fine_tune_quantized gave it; some of "
            "its FakeQuantize are gone, so that the file would not be of 8 bits"
        )


def _said_of(pictures: Pictures, bias_correction: bool) -> dict[str, Any]:
    images = pictures.calibration
    return {
        "images": len(images),
        "lowest": float(images.min()),
        "highest": float(images.max()),
        "bias_correction": bias_correction,
    }


def _check_agreement(compared: dict[str, Any], kind: Kind) -> None:
    """Raises ExportFailed where the file says too often something else."""
    figure, agreement = judged(compared)
    if agreement < kind.least:
        of = compared["sure_images"] if figure != "agreement" else compared["images"]
        sure = " that it is sure of" if figure != "agreement" else ""
        raise ExportFailed(
            f"the file agrees with the Keras model on {agreement:.1%} of {of} images"
            f"{sure}; {kind.text} must agree on {kind.least:.1%}. Try {kind.instead}"
        )


def _aside(file: pathlib.Path) -> pathlib.Path:
    """The next free name beside it, for a file that failed."""
    number = 1
    while True:
        aside = file.with_name(f"{file.stem}.rejected-{number}{file.suffix}")
        if not os.path.lexists(aside) and not os.path.lexists(report_of(aside)):
            return aside
        number += 1


def _bytes_of(made: pathlib.Path) -> int:
    """Of a file, or of all in a folder."""
    return sum(
        path.stat().st_size for path in (made, *made.rglob("*")) if path.is_file()
    )


def _keep(made: pathlib.Path, file: pathlib.Path, report: dict[str, Any]) -> None:
    """Put what was made where it is to be, and the report on it beside it."""
    if made.is_dir():
        with storage.new_folder(file) as beside:
            shutil.copytree(made, beside, dirs_exist_ok=True)
    else:
        with storage.replacing(file) as beside:
            shutil.copyfile(made, beside)
    storage.write_json(report_of(file), report)
