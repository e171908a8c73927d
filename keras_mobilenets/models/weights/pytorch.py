"""PyTorch's networks: timm's and torchvision's names, from a `.safetensors` file.

Sources: `timm/models/efficientnet.py`, `_efficientnet_blocks.py` (timm 1.0) and
`torchvision/models/mobilenetv2.py`. Both pad by half the kernel on either side, where
TensorFlow's SAME at stride 2 and even sizes pads below and right alone, and use
`nn.BatchNorm2d`'s epsilon.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from keras_mobilenets.errors import UsageError
from keras_mobilenets.models.weights.safetensors import read_tensors
from keras_mobilenets.models.weights.stored import (
    AS_PUBLISHED,
    CLASSIFIER,
    Layers,
    Stored,
)

TRAITS = AS_PUBLISHED | {"padding": "symmetric", "batch_norm_epsilon": 1e-5}

NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
CONVOLUTION = {"weight": "kernel", "bias": "bias"}


def read_safetensors(path: str) -> Stored:
    """A MobileNetV1 or V2 of timm, or a V2 of torchvision."""
    tensors = read_tensors(path)
    modules = dict.fromkeys(name.rpartition(".")[0] for name in tensors)
    title, names = "timm", timm_names(modules)
    if "features.0.0" in modules:
        title, names = "torchvision", torchvision_names()
    layers: Layers = {}
    unused = []
    for name, value in tensors.items():
        module, _, parameter = name.rpartition(".")
        layer = names.get(module)
        if parameter == "num_batches_tracked":
            continue
        if layer is None:
            unused.append(name)
            continue
        variable = (NORM if layer.endswith("_bn") else CONVOLUTION).get(parameter)
        if variable is None:
            raise UsageError(f"it has a {name}, which MobileNets have not")
        layers.setdefault(layer, {})[variable] = _transposed(layer, value)
    inside = [name for name in unused if name.startswith(("blocks.", "features."))]
    if inside or "stem" not in layers:
        raise UsageError(
            "it has not the names of a MobileNetV1 or V2 of timm or torchvision, but "
            f"{', '.join((inside or unused)[:3]) or 'nothing'}"
        )
    return Stored(f"safetensors of {title}", layers, TRAITS, unused=tuple(unused))


def _transposed(layer: str, value: np.ndarray) -> np.ndarray:
    """From [outputs, inputs, height, width] to Keras' [height, width, inputs, outputs].

    A depthwise kernel [channels, 1, height, width] becomes [.., channels, 1].
    """
    if value.ndim == 4:
        return value.transpose((2, 3, 0, 1) if "depthwise" in layer else (2, 3, 1, 0))
    return value.T if layer == CLASSIFIER else value


def timm_names(modules: Iterable[str]) -> dict[str, str]:
    """{module of timm: layer of the plan}, for the blocks that there are.

    Blocks count on through the stages: `blocks.STAGE.INDEX`. With an expansion they
    are conv_pw, bn1, conv_dw, bn2, conv_pwl, bn3, without conv_dw, bn1, conv_pw, bn2.
    """
    modules = set(modules)
    names = {
        "conv_stem": "stem",
        "bn1": "stem_bn",
        "conv_head": "top",
        "bn2": "top_bn",
        "classifier": CLASSIFIER,
    }
    places = (re.match(r"blocks\.(\d+)\.(\d+)\.", module) for module in modules)
    blocks = sorted({(int(place[1]), int(place[2])) for place in places if place})
    for number, (stage, index) in enumerate(blocks, start=1):
        prefix = f"blocks.{stage}.{index}"
        parts = {"conv_dw": "depthwise", "conv_pw": "project"}
        if f"{prefix}.conv_pwl" in modules:
            parts = {"conv_pw": "expand", "conv_dw": "depthwise", "conv_pwl": "project"}
        for place, (module, part) in enumerate(parts.items(), start=1):
            names[f"{prefix}.{module}"] = f"block_{number}_{part}"
            names[f"{prefix}.bn{place}"] = f"block_{number}_{part}_bn"
    return names


def torchvision_names() -> dict[str, str]:
    """{module of torchvision's mobilenet_v2: layer of the plan}."""
    names = {
        "features.0.0": "stem",
        "features.0.1": "stem_bn",
        "features.18.0": "top",
        "features.18.1": "top_bn",
        "classifier.1": CLASSIFIER,
    }
    for block in range(1, 18):
        parts = ["expand", "depthwise"] if block > 1 else ["depthwise"]
        prefix = f"features.{block}.conv"
        for place, part in enumerate(parts):
            names[f"{prefix}.{place}.0"] = f"block_{block}_{part}"
            names[f"{prefix}.{place}.1"] = f"block_{block}_{part}_bn"
        names[f"{prefix}.{len(parts)}"] = f"block_{block}_project"
        names[f"{prefix}.{len(parts) + 1}"] = f"block_{block}_project_bn"
    return names
