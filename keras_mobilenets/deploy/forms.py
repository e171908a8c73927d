"""The forms in which one network can be run, each as a file that is timed."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_mobilenets.deploy.conversion import KINDS, convert
from keras_mobilenets.deploy.folding import fuse
from keras_mobilenets.deploy.network import Network, network_of
from keras_mobilenets.deploy.pictures import take_pictures

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
    """One form: `make` gives a Keras model, or the content of a file of `suffix`.

    None where there is no such form of a network.
    """

    text: str
    suffix: str
    make: Callable[[Subject], keras.Model | bytes | None]


def _stock(subject: Subject) -> keras.Model | None:
    if subject.name is None:
        return None
    made = STOCK[subject.name](
        input_shape=subject.folded.shape,
        alpha=subject.alpha,
        weights=None,
        classes=subject.folded.classes,
    )
    weights = zip(subject.model.get_weights(), made.weights, strict=True)
    # V1's classifier is a 1x1 convolution there.
    made.set_weights([np.reshape(value, like.shape) for value, like in weights])
    return made


def _lite(quantization: str | None) -> Form:
    text = f"LiteRT, {quantization or 'float32'}"
    return Form(
        text,
        ".tflite",
        lambda subject: convert(
            subject.folded, quantization, subject.images[:CALIBRATION], "float32"
        ),
    )


FORMS = {
    "keras.applications": Form("keras.applications, tf.function", ".keras", _stock),
    "keras": Form("tf.function", ".keras", lambda subject: subject.model),
    "fused": Form(
        "batch norm folded, tf.function", ".keras", lambda subject: fuse(subject.model)
    ),
    **{kind or "float32": _lite(kind) for kind in KINDS},
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


def write_forms(
    subject: Subject,
    forms: Mapping[str, Form],
    folder: pathlib.Path,
    say: Callable[[str], None],
) -> dict[str, pathlib.Path]:
    """A file of each form that there is of this network, in a folder that exists."""
    files = {}
    for name, form in forms.items():
        say(f"making {form.text}")
        made = form.make(subject)
        path = folder / f"{name}{form.suffix}"
        if isinstance(made, keras.Model):
            made.save(path)
        elif made is not None:
            path.write_bytes(made)
        if made is not None:
            files[name] = path
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
