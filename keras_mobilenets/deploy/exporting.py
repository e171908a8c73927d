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
from keras_mobilenets.deploy.correction import correct
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
ACTIVATIONS = 2**28  # bytes of one layer's, while biases are corrected


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
) -> dict[str, Any]:
    """Write a model as a file, and what it is worth as JSON beside it.

    As `km.export` says, which takes a run too. `recipe` is by which images are prepared
    for the model; by default that of `calibration`, if it says so.
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
    network = network_of(model)
    pictures = take_pictures(calibration, network.shape)
    names = _check_labels(labels, pictures, network.classes)
    if pictures.classes is not None and list(pictures.classes) != names:
        pictures = pictures._replace(labels=None)  # of other classes
    if quantization and kind.activation_bits:
        check_calibration(pictures, quantization)
    if kind.weights == tf.float16:
        _check_halves(network)
    converted = network
    if kind.activation_bits and bias_correction:
        converted = _corrected(network, pictures, kind)
    about = describe(
        names, network.squashing, recipe or pictures.recipe, input, quantization
    )
    report: dict[str, Any] = {
        "file": file.name,
        "format": kind.text,
        "image": list(network.shape),
        **about,
        "calibration": _said_of(pictures, bias_correction)
        if kind.activation_bits
        else None,
        "required_agreement": kind.least,
    }
    if input == "uint8":
        seen = from_pixels(as_pixels(pictures.proof))
        pictures = pictures._replace(proof=seen)
    with tempfile.TemporaryDirectory() as folder:
        made = pathlib.Path(folder, file.name)
        form.write(made, converted, about, pictures.calibration)
        classifier = form.read(made, THREADS)
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


def _corrected(network: Network, pictures: Pictures, kind: Kind) -> Network:
    """A copy with rounded kernels and the biases that go with them."""
    copy = Network(keras.models.clone_model(network.logits), network.squashing)
    copy.logits.set_weights(network.logits.get_weights())
    largest = max(
        4 * int(np.prod(layer.output.shape[1:])) for layer in copy.logits.layers
    )
    images = pictures.calibration
    count = max(1, min(len(images), ACTIVATIONS // largest))
    some = np.linspace(0, len(images) - 1, count).round().astype(int)
    assert kind.activation_bits is not None
    correct(copy.logits, images[some], kind.activation_bits)
    return copy


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
