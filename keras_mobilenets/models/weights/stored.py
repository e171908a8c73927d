"""What a file of weights holds, in the terms of the plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from keras_mobilenets.architecture.arguments import MAX_ALPHA
from keras_mobilenets.architecture.plan import make_plan
from keras_mobilenets.architecture.published import V1_ROWS, V2_ROWS

Layers = dict[str, dict[str, np.ndarray]]  # layer of the plan -> variable -> values

TITLES = {"mobilenet_v1": "MobileNetV1", "mobilenet_v2": "MobileNetV2"}
PUBLISHED = {"mobilenet_v1": V1_ROWS, "mobilenet_v2": V2_ROWS}
CLASSIFIER = "logits"
WITH_BACKGROUND = 1001  # ImageNet's 1000 classes behind slim's background

# What the authors trained, in the arguments of `build`. Weights do not show it, and a
# network that differs in it gives other outputs from them without a sign.
AS_PUBLISHED = {
    "padding": "same",
    "batch_norm_epsilon": 1e-3,
    "activation": "relu6",
    "linear_bottleneck": True,
    "shortcut": "bottleneck",
}


class Stored(NamedTuple):
    """Weights as a file holds them, under the names of the plan's layers.

    `kind` says in words what sort of file it is. Convolutions are [height, width,
    inputs, outputs], depthwise ones [height, width, channels, 1], the classifier
    [inputs, classes]. A convolution with a bias and no batch norm has it folded in.
    `traits` are those arguments of `build` that are known of the network which was
    trained. `background`: class 0 of 1001 is none of ImageNet's. `notes` say what was
    chosen, `unused` which layers of the file are not of the network.
    """

    kind: str
    layers: Layers
    traits: Mapping[str, Any] = {}
    background: bool = False
    notes: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


class Network(NamedTuple):
    """What weights belong to, as far as their names and shapes tell."""

    name: str
    alpha: float | None
    classes: int | None  # None: it has no classifier

    def __str__(self) -> str:
        alpha = "an alpha of its own" if self.alpha is None else f"alpha {self.alpha:g}"
        classes = "no classifier" if self.classes is None else f"{self.classes} classes"
        return f"{TITLES[self.name]}, {alpha}, {classes}"


def identify(layers: Mapping[str, Mapping[str, Any]]) -> Network | None:
    """The network that arrays or variables, by the plan's names, belong to.

    None where they belong to none.
    """
    if "stem" not in layers:
        return None
    # V1 has 13 blocks at most, and V2 expansions but where they are by a factor of 1.
    is_v2 = any(la.endswith("_expand") or la == "block_14_project" for la in layers)
    name = "mobilenet_v2" if is_v2 else "mobilenet_v1"
    widths = {
        layer: int([0, *values["kernel"].shape][-1])
        for layer, values in layers.items()
        if "kernel" in values and not layer.endswith("_depthwise")
    }
    return Network(name, _alpha(name, widths), widths.get(CLASSIFIER))


def _alpha(name: str, widths: Mapping[str, int]) -> float | None:
    """The alpha that gives these widths; a published one where several do.

    Told from the layers that every variation of the network has: the first three
    blocks and the last.
    """

    def told(alpha: float) -> list[int | None]:
        plan = make_plan(name, alpha=alpha, include_top=False)
        full = {layer.name: layer.channels_out for layer in plan}
        return _told(full)

    theirs = _told(widths)
    if None in theirs[:1] + theirs[-1:]:
        return None
    published = sorted({row[0] for row in PUBLISHED[name]}, reverse=True)
    measured = [
        round(ours / unit, 2)
        for ours, unit in zip(theirs, told(1.0), strict=False)
        if ours and unit
    ]
    for alpha in (*published, *measured):
        if 0 < alpha <= MAX_ALPHA and told(alpha) == theirs:
            return alpha
    return None


def _told(widths: Mapping[str, int]) -> list[int | None]:
    """The widths by which alpha is told; the last is that of the last block."""
    ends = [n for n in widths if re.fullmatch(r"block_\d+_(project|conv)", n)]
    ends.sort(key=lambda name: int(name.split("_")[1]))
    early = [widths.get("stem"), *(widths[name] for name in ends[:3])]
    return [*early, widths.get("top"), *(widths[name] for name in ends[-1:])]
