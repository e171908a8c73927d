"""`.keras`, `.weights.h5` and `.h5` files, read without building what is in them.

Three layouts: Keras 3's own (`layers/conv2d/vars/0`, the layer's name as an attribute),
alone or in the zip of a `.keras` file, and the older one by names of layers, alone or
as `model_weights` beside the config of a whole model.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import numpy as np

from keras_mobilenets.architecture.plan import make_plan
from keras_mobilenets.architecture.tables import NETWORKS
from keras_mobilenets.errors import UsageError
from keras_mobilenets.models.weights.applications import plan_name
from keras_mobilenets.models.weights.stored import AS_PUBLISHED, Layers, Stored
from keras_mobilenets.models.weights.traits import traits_of

OWN = r"(stem|top|block_\d+_(expand|depthwise|project|conv))(_bn)?|logits"
Scopes = dict[str, Layers]  # a model, or a model nested in it -> its layers


def read_keras_file(path: str) -> Stored:
    """A model saved by Keras 3, of ours or of keras.applications, or with one in it."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        names = archive.namelist()
        if "model.weights.h5" not in names:
            raise UsageError("it has no model.weights.h5; its weights are in shards")
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as file:
        return _find_network("Keras model", _keras3_scopes(file), config)


def read_hdf5_file(path: str) -> Stored:
    """Weights or a whole model in HDF5, in any of the layouts of Keras."""
    with h5py.File(path) as file:
        if "layer_names" in file.attrs or "layer_names0" in file.attrs:
            return _find_network("Keras weights by name", _legacy_scopes(file), None)
        if "model_weights" in file:
            config = json.loads(file.attrs.get("model_config", "null"))
            scopes = _legacy_scopes(file["model_weights"])
            return _find_network("Keras model in HDF5", scopes, config)
        return _find_network("Keras weights", _keras3_scopes(file), None)


def _read(dataset: Any) -> np.ndarray:
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise UsageError("it refers to other files, which are not read")
    return np.asarray(dataset[()])


def _named(arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The variables of a layer, which its `save_own_variables` numbers."""
    if len(arrays) == 4 and all(array.ndim == 1 for array in arrays):
        names = ["gamma", "beta", "moving_mean", "moving_variance"]
    else:
        names = ["kernel", "bias", *map(str, range(2, len(arrays)))]
    return dict(zip(names, arrays, strict=False))


def _keras3_scopes(file: h5py.File) -> Scopes:
    """Layers by the model that holds them; those without a name cannot be told."""
    scopes: Scopes = {}

    def visit(path: str, item: Any) -> None:
        if not isinstance(item, h5py.Group) or not re.search(r"(^|/)vars$", path):
            return
        if path.startswith("optimizer") or not len(item):
            return
        layer = str(item.attrs.get("name", ""))
        if not layer:
            raise UsageError(
                "its layers have no names, as an older Keras has saved it: load it "
                "with Keras, and save it again"
            )
        arrays = [_read(item[key]) for key in sorted(item, key=lambda k: (len(k), k))]
        scope = path.rsplit("/", 2)[0]
        scopes.setdefault(scope, {})[layer] = _named(arrays)

    file.visititems(visit)
    return scopes


def _attribute(group: h5py.Group, name: str) -> list[str]:
    """A list of names, which Keras cuts into pieces where it is long."""
    pieces = [name] if name in group.attrs else []
    while not pieces or pieces[-1] != name:
        piece = f"{name}{len(pieces)}"
        if piece not in group.attrs:
            break
        pieces.append(piece)
    values = [value for piece in pieces for value in group.attrs[piece]]
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def _legacy_scopes(group: h5py.Group) -> Scopes:
    """Layers in the order of the model; a nested model's are in its own group."""
    scopes: Scopes = {"": {}}
    for layer in _attribute(group, "layer_names"):
        for path in _attribute(group[layer], "weight_names"):
            *_, owner, variable = ["", *path.split("/")]
            variable = variable.split(":")[0]
            if variable == "depthwise_kernel":
                variable = "kernel"
            scope = scopes.setdefault(layer, {})
            scope.setdefault(owner, {})[variable] = _read(group[layer][path])
        # A layer has one owner of variables; its own name is the better one.
        if len(scopes.get(layer, {})) == 1:
            (scopes[""][layer],) = scopes.pop(layer).values()
    return scopes


def _find_network(kind: str, scopes: Scopes, config: Any) -> Stored:
    """The network of ours or of keras.applications among the models in a file."""
    lambdas = [
        layer["config"].get("name", "?")
        for layers in _layer_lists(config)
        for layer in layers
        if layer.get("class_name") == "Lambda"
    ]
    if lambdas:
        raise UsageError(
            f"it has a Lambda layer ({lambdas[0]!r}), whose code is not run: save the "
            "network that is in it by itself, or its weights with save_weights()"
        )
    found = []
    for scope, layers in scopes.items():
        for origin, names in _dialects(layers):
            blocks = [n for n in names.values() if n.startswith("block_1_")]
            if "stem" in names.values() and blocks:
                found.append((scope, origin, names))
                break
    if len(found) != 1:
        held = [name for layers in scopes.values() for name in layers][:6]
        count = "no MobileNetV1 or V2" if not found else f"{len(found)} MobileNets"
        raise UsageError(f"there are {count} in it, but {', '.join(held) or 'nothing'}")
    ((scope, origin, names),) = found
    traits = AS_PUBLISHED if origin != OURS else _own_traits(config)
    return Stored(
        f"{kind} of {origin}" if origin != OURS else kind,
        {ours: scopes[scope][theirs] for theirs, ours in names.items()},
        traits,
        unused=tuple(
            name
            for other, layers in scopes.items()
            for name, values in layers.items()
            if (other != scope or name not in names) and "seed" not in name
            and any(np.ndim(value) for value in values.values())
        ),
    )  # fmt: skip


OURS = "keras_mobilenets"
THEIRS = "keras.applications"


def _dialects(layers: Layers) -> Iterator[tuple[str, dict[str, str]]]:
    """(whose names, {name in the file: name in the plan}), the likeliest first."""
    yield OURS, {name: name for name in layers if re.fullmatch(OWN, name)}
    translated = {name: plan_name(name) for name in layers}
    yield THEIRS, {name: ours for name, ours in translated.items() if ours}
    yield THEIRS, _by_position(layers)


def _by_position(layers: Layers) -> dict[str, str]:
    """Names by the order of convolutions and batch norms alone.

    Keras loads such a file by order, and the names in V2's published ones are older
    than those in its code: `bn1_conv_1_bn_expand` (mobilenet_v2_keras#8).
    """
    given = {name: "gamma" in values for name, values in layers.items()}
    for network in NETWORKS:
        names = []
        for layer in make_plan(network):
            if layer.kind in ("conv", "depthwise", "dense"):
                names += [layer.name] + [f"{layer.name}_bn"] * layer.batch_norm
        for wanted in (names, names[:-1]):
            if [name.endswith("_bn") for name in wanted] == list(given.values()):
                return dict(zip(given, wanted, strict=True))
    return {}


def _layer_lists(config: Any) -> Iterator[list[Mapping[str, Any]]]:
    """The list of layers of every model in a config."""
    if isinstance(config, Mapping):
        layers = config.get("layers")
        if isinstance(layers, list):
            named = [layer for layer in layers if isinstance(layer, Mapping)]
            yield [la for la in named if isinstance(la.get("config"), Mapping)]
        for value in config.values():
            yield from _layer_lists(value)
    elif isinstance(config, list):
        for value in config:
            yield from _layer_lists(value)


def _own_traits(config: Any) -> Mapping[str, Any]:
    for layers in _layer_lists(config):
        if any(layer["config"].get("name") == "stem" for layer in layers):
            return traits_of(layers)
    return {}  # a file of weights alone
