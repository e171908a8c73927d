"""The forms in which one network can be run, each as a file that is timed."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_mobilenets.deploy.classifier import describe
from keras_mobilenets.deploy.conversion import KINDS
from keras_mobilenets.deploy.folding import fuse
from keras_mobilenets.deploy.formats import FORMATS
from keras_mobilenets.deploy.network import Network, network_of
from keras_mobilenets.deploy.pictures import take_pictures
from keras_mobilenets.deploy.timing import KERAS
from keras_mobilenets.errors import UsageError

STOCK = {
    "mobilenet_v1": keras.applications.MobileNet,
    "mobilenet_v2": keras.applications.MobileNetV2,
}
CALIBRATION = 4  # images: what a file says is not looked at, only how long it takes


class Subject(NamedTuple):
    """A network that is timed, and what its forms are made of.

    `folded` is what is exported. `name` and `alpha` are those of keras.applications'
    network of the same weights, where it has one. `images` are in [-1, 1].
    """

    model: keras.Model
    folded: Network
    images: np.ndarray
    name: str | None = None
    alpha: float = 1.0


class Form(NamedTuple):
    """One form: `write` makes a file of it, which `runtime` runs (see timing.py).

    `check` raises UsageError where there is no such form, of this network or here.
    """

    text: str
    runtime: str
    write: Callable[[pathlib.Path, Subject], Any]
    check: Callable[[Subject], Any] = lambda subject: None


def _check_stock(subject: Subject) -> None:
    if subject.name is None:
        raise UsageError(
            "keras.applications has a network without variations only, by its name or "
            f"of a run; got {subject.model.name!r}"
        )


def _write_stock(path: pathlib.Path, subject: Subject) -> None:
    assert subject.name is not None
    made = STOCK[subject.name](
        input_shape=subject.folded.shape,
        alpha=subject.alpha,
        weights=None,
        classes=subject.folded.classes,
    )
    weights = zip(subject.model.get_weights(), made.weights, strict=True)
    # V1's classifier is a 1x1 convolution there.
    made.set_weights([np.reshape(value, like.shape) for value, like in weights])
    made.save(path)


def _exported(text: str, suffix: str, quantization: str | None = None) -> Form:
    """A form that is a file of `export`, without its proof: it is not used."""
    of = FORMATS[suffix]

    def write(path: pathlib.Path, subject: Subject) -> None:
        folded = subject.folded
        classes = [str(number) for number in range(folded.classes)]
        about = describe(classes, folded.squashing, None, "float32", quantization)
        of.write(path, folded, about, subject.images[:CALIBRATION])

    return Form(text, suffix, write, lambda subject: of.check_modules())


FORMS = {
    "keras.applications": Form(
        "keras.applications, tf.function", KERAS, _write_stock, _check_stock
    ),
    "keras": Form("tf.function", KERAS, lambda path, subject: subject.model.save(path)),
    "fused": Form(
        "batch norm folded, tf.function",
        KERAS,
        lambda path, subject: fuse(subject.model).save(path),
    ),
    **{
        kind or "float32": _exported(f"LiteRT, {kind or 'float32'}", ".tflite", kind)
        for kind in KINDS
    },
    "onnx": _exported("ONNX, float32, onnxruntime", ".onnx"),
}


def subject_of(
    model: keras.Model, name: str | None = None, alpha: float = 1.0
) -> Subject:
    """A model that can be put into all forms, with pictures that are made up.

    Raises:
        UsageError: it is none; see `fuse`.
    """
    folded = network_of(model)
    return Subject(model, folded, take_pictures(None, folded.shape).proof, name, alpha)


def choose(subject: Subject, names: Sequence[str] | None) -> dict[str, Form]:
    """The forms of these names, or by default all that there are of this network.

    Raises:
        UsageError: there is no such form of it, or here.
    """
    if names is not None:
        for name in names:
            FORMS[name].check(subject)
        return {name: FORMS[name] for name in names}
    found = {}
    for name, form in FORMS.items():
        with contextlib.suppress(UsageError):
            form.check(subject)
            found[name] = form
    return found


def write_forms(
    subject: Subject,
    forms: Mapping[str, Form],
    folder: pathlib.Path,
    say: Callable[[str], None],
) -> dict[str, pathlib.Path]:
    """A file of each form, in a folder that exists."""
    files = {}
    for name, form in forms.items():
        say(f"making {form.text}")
        files[name] = folder / f"{name}{form.runtime}"
        form.write(files[name], subject)
    return files


def scatter(model: keras.Model) -> keras.Model:
    """Kernels at random that keep the size of what goes through (He et al. 2015).

    New kernels let it shrink from layer to layer, in the end to denormal numbers, which
    take a processor many times as long; no trained network does that.
    """
    rng = np.random.default_rng(0)
    for layer in model.layers:
        kernel: Any = getattr(layer, "kernel", None)
        if kernel is not None:
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            sides = kernel.shape[: 2 if depthwise else -1]
            scale = np.sqrt(2 / np.prod(sides))
            kernel.assign(rng.normal(0, scale, kernel.shape).astype("float32"))
    return model
