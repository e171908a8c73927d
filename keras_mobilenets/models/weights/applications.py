"""keras.applications' names of layers, and its ImageNet weights.

Sources: `keras/src/applications/mobilenet.py` and `mobilenet_v2.py`.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_mobilenets import storage
from keras_mobilenets.architecture.plan import Layer, make_plan
from keras_mobilenets.errors import UsageError
from keras_mobilenets.models.weights.setting import check_traits, variables_of
from keras_mobilenets.models.weights.stored import (
    AS_PUBLISHED,
    CLASSIFIER,
    PUBLISHED,
    identify,
)
from keras_mobilenets.models.weights.traits import traits_of

URL = "https://storage.googleapis.com/tensorflow/keras-applications"
FILES = {
    "mobilenet_v1": "mobilenet/mobilenet_{alpha}_{resolution}_tf{top}.h5",
    "mobilenet_v2": "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_"
    "{alpha}_{resolution}{top}.h5",
}
V1_ALPHAS = {0.25: "2_5", 0.5: "5_0", 0.75: "7_5", 1.0: "1_0"}  # in names of files
CACHE = "models"  # the folder of get_file, in Keras' home


def plan_name(layer: str) -> str | None:
    """The plan's name of a layer of keras.applications; None for others.

    >>> plan_name("block_1_expand_BN"), plan_name("conv_pw_13")
    ('block_2_expand_bn', 'block_13_project')
    """
    fixed = {
        "Conv1": "stem",
        "bn_Conv1": "stem_bn",
        "Conv_1": "top",
        "Conv_1_bn": "top_bn",
        "predictions": CLASSIFIER,
        "Logits": CLASSIFIER,
        "conv1": "stem",
        "conv1_bn": "stem_bn",
        "conv_preds": CLASSIFIER,
    }
    if layer in fixed:
        return fixed[layer]
    v1 = re.fullmatch(r"conv_(dw|pw)_(\d+)(_bn)?", layer)
    if v1:
        part = {"dw": "depthwise", "pw": "project"}[v1[1]]
        return f"block_{v1[2]}_{part}{v1[3] or ''}"
    v2 = re.fullmatch(
        r"(?:expanded_conv|block_(\d+))_(expand|depthwise|project)(_BN)?", layer
    )
    if v2:  # theirs count from 0, which is called expanded_conv
        return f"block_{int(v2[1] or 0) + 1}_{v2[2]}{(v2[3] or '').lower()}"
    return None


def fetch_imagenet(model: keras.Model) -> tuple[pathlib.Path, tuple[str, ...]]:
    """The file of keras.applications' ImageNet weights for a model, downloaded once.

    Where there are none for its resolution, those of 224 pixels are taken; the second
    part says so. With another number of classes it is the file without a classifier.

    Raises:
        UsageError: none were published for this network, before any download; or the
            download failed.
    """
    name, alpha, classes = _published_network(model)
    resolution, notes = _resolution(name, alpha, model.input_shape[1:3])
    path = FILES[name].format(
        alpha=V1_ALPHAS[alpha] if name == "mobilenet_v1" else alpha,
        resolution=resolution,
        top="" if classes == 1000 else "_no_top",
    )
    hint = ", or give its path as weights"
    return download(f"{URL}/{path}", 'weights="imagenet"', hint), notes


def download(url: str, what: str, hint: str = "") -> pathlib.Path:
    """A file of keras.applications, downloaded once to where Keras keeps its own.

    Raises:
        UsageError: it could not be; the message says where to put it.
    """
    home = pathlib.Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    file = home / CACHE / url.split("/")[-1]
    try:
        if not file.is_file():
            with storage.replacing(file) as beside:  # get_file may leave half of it
                keras.utils.get_file(
                    beside.name, url, cache_dir=home, cache_subdir=CACHE
                )
    except Exception as error:  # get_file raises a bare Exception
        raise UsageError(
            f"{what} could not be downloaded ({error}): get {url} elsewhere and put it "
            f"into {file.parent}{hint}"
        ) from error
    return file


def _published_network(model: keras.Model) -> tuple[str, float, int | None]:
    """Name, alpha and classes of a model that is as its authors published it."""
    ours = variables_of(model)
    network = identify(ours)
    if network is None:
        raise UsageError("model must be one of build()")
    alphas = sorted({row[0] for row in PUBLISHED[network.name]})
    if network.alpha not in alphas:
        got = "others" if network.alpha is None else f"those of alpha={network.alpha:g}"
        raise UsageError(
            f'weights="imagenet" for {network.name} exist at alpha '
            f"{', '.join(map(str, alphas))}; got {got}"
        )
    plan = make_plan(network.name, alpha=network.alpha, include_top=False)
    if _outlines(plan) != {
        name: int(values["kernel"].shape[2 if name.endswith("_depthwise") else 3])
        for name, values in ours.items()
        if "kernel" in values and name != CLASSIFIER
    }:
        raise UsageError(
            'weights="imagenet" were trained on the network as published; got a '
            "variation with other layers: leave it out or train from scratch"
        )
    try:
        check_traits(AS_PUBLISHED, traits_of(model.get_config()["layers"]))
    except UsageError as error:
        raise UsageError(
            f'weights="imagenet" are of the network as published: {error}'
        ) from None
    return network.name, network.alpha, network.classes


def _outlines(plan: Sequence[Layer]) -> Mapping[str, Any]:
    return {layer.name: layer.channels_out for layer in plan if layer.batch_norm}


def _resolution(
    name: str, alpha: float, size: tuple[int | None, int | None]
) -> tuple[int, tuple[str, ...]]:
    """The resolution of the weights to take, and a word where it is not the model's.

    They were made from slim's checkpoints, and exist where those do: V2 1.3 and 1.4
    at 224 pixels only (keras#16452).
    """
    resolutions = [row[1] for row in PUBLISHED[name] if row[0] == alpha]
    if size[0] == size[1] and size[0] in resolutions:
        return size[0], ()
    shown = f"{size[0]}" if size[0] == size[1] else f"{size[0]} x {size[1]}"
    return 224, (f"there are none of {shown} pixels: those of 224 were taken",)
