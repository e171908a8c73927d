"""SavedModel folders, which TensorFlow and its servers run.

The weights are constants, and beside the network lie the texts of `classifier.py`, in
`assets.extra`, where TensorFlow leaves files of others alone. A graph of TensorFlow can
read and write files: what is in one is checked before TensorFlow sees it.
"""

from __future__ import annotations

import math
import os
import pathlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework.convert_to_constants import (
    convert_variables_to_constants_v2,
)

from keras_mobilenets.deploy.classifier import (
    ABOUT,
    LABELS,
    Classifier,
    by_batches,
    classifier_of,
    texts_of,
)
from keras_mobilenets.deploy.conversion import (
    SIGNATURE,
    as_pixels,
    make_signature,
    quietly,
)
from keras_mobilenets.deploy.network import BATCH, Network
from keras_mobilenets.errors import UsageError
from keras_mobilenets.text import printable

EXTRA = "assets.extra"
GRAPH = "saved_model.pb"
VARIABLES = ("variables/variables.index", "variables/variables.data-00000-of-00001")
FILES = {GRAPH, "fingerprint.pb", *VARIABLES, f"{EXTRA}/{LABELS}", f"{EXTRA}/{ABOUT}"}
FOLDERS = {"variables", "assets", EXTRA}
NO_VARIABLES = 2**16  # bytes of a file that holds none
NETWORK = {
    *("Conv2D", "DepthwiseConv2dNative", "BiasAdd", "Relu6", "Relu", "AddV2", "Mean"),
    *("MatMul", "Softmax", "Sigmoid", "Reshape", "Squeeze"),
    *("MirrorPad", "Pad"),  # of padding="symmetric"
    *("SpaceToBatchND", "BatchToSpaceND"),  # of dilation
}
SCALING = {"Cast", "Mul", "Sub"}  # of pixels, where the file takes these
CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
STRUCTURE = CALLS | {"Const", "Identity", "NoOp", "Placeholder"}
# What reads and writes variables, for servers; in functions that nothing here runs.
SAVER = {
    *("SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename", "Pack"),
    *("StaticRegexFullMatch", "Select", "StringJoin"),
}
OBJECTS = {"user_object", "function", "bare_concrete_function"}
USER_OBJECTS = {"_generic_user_object", "signature_map"}  # tf.Module, its signatures
LARGEST_GRAPH = 2**16  # operations, each function written out where it is called
LARGEST_CONSTANT = 2**28  # numbers, of all constants


def write(
    path: pathlib.Path, network: Network, about: dict[str, Any], images: np.ndarray
) -> None:
    """Write a network as such a folder, its batch open.

    Raises:
        UsageError: it has an operation that no MobileNet has.
    """
    with quietly():
        signature = make_signature(network, about["input"])
        frozen = convert_variables_to_constants_v2(signature.get_concrete_function())

        @tf.function(input_signature=signature.input_signature, autograph=False)
        def classify(image: tf.Tensor) -> dict[str, tf.Tensor]:
            logits, probabilities = frozen(image)
            return {"logits": logits, "probabilities": probabilities}

        module = tf.Module()
        module.classify = classify
        tf.saved_model.save(module, os.fspath(path), signatures={SIGNATURE: classify})
    (path / EXTRA).mkdir()
    for name, text in texts_of(about).items():
        (path / EXTRA / name).write_text(text, encoding="utf-8")
    check_graph((path / GRAPH).read_bytes())


def read(path: pathlib.Path, threads: int) -> Classifier:
    """Such a folder, ready to run; whatever is wrong with it is raised.

    TensorFlow has one pool of threads for all that it does: `threads` changes nothing.
    """
    _check_files(path)
    operations = check_graph((path / GRAPH).read_bytes())
    with quietly():
        loaded = tf.saved_model.load(os.fspath(path))
    run_signature = loaded.signatures[SIGNATURE]
    image = run_signature.structured_input_signature[1]["image"]

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        given = as_pixels(images) if image.dtype == tf.uint8 else images
        said = run_signature(image=tf.constant(given, image.dtype))
        return said["logits"].numpy(), said["probabilities"].numpy()

    return classifier_of(
        (path / EXTRA / ABOUT).read_bytes(),
        by_batches(run, BATCH),
        image.shape.as_list(),
        operations,
        tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1,
    )


def _check_files(folder: pathlib.Path) -> None:
    """Only files that were written, for TensorFlow takes some before saved_model.pb."""
    for found in sorted(folder.rglob("*")):
        name = found.relative_to(folder).as_posix()
        if found.is_symlink() or not (found.is_dir() or found.is_file()):
            raise UsageError(f"its {name!r} is a link or a pipe, which is not followed")
        known = FOLDERS if found.is_dir() else FILES
        if name not in known and not found.name.startswith("."):
            raise UsageError(f"it holds {name!r}, which is no part of a network")
        if name in VARIABLES and found.stat().st_size > NO_VARIABLES:
            raise UsageError(f"its {name!r} holds variables; weights must be constants")


def check_graph(content: bytes) -> dict[str, int]:
    """The operations of what is in saved_model.pb, which are a MobileNet's.

    Raises:
        UsageError: it holds something else, with its cause.
        google.protobuf.message.DecodeError: it is damaged.
    """
    graphs = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    if len(graphs) != 1 or not graphs[0].HasField("object_graph_def"):
        raise UsageError("it must hold one graph, of tf.saved_model.save")
    graph, objects = graphs[0].graph_def, graphs[0].object_graph_def
    for node in objects.nodes:
        kind = node.WhichOneof("kind")
        revived = kind == "user_object" and node.user_object.identifier
        if (
            kind not in OBJECTS
            or (revived and revived not in USER_OBJECTS)
            or node.registered_name
            or node.registered_saver
            or node.saveable_objects
        ):
            raise UsageError(f"it holds a {revived or kind}, which no network needs")
    functions = {of.signature.name: of.node_def for of in graph.library.function}
    used: dict[str, int] = {}
    for name in objects.concrete_functions:
        _measure(name, functions, used)
    operations: Counter[str] = Counter()
    numbers = 0
    for name, nodes in {"": graph.node, **functions}.items():
        runs = name in used
        counted = Counter(node.op for node in nodes)
        _check_nodes(nodes, NETWORK | SCALING | STRUCTURE | (set() if runs else SAVER))
        operations.update(counted if runs else {})
        numbers += _count_numbers(nodes)
    if numbers > LARGEST_CONSTANT:  # one stored number may stand for many
        raise UsageError(f"it holds {numbers:,} numbers, at most {LARGEST_CONSTANT:,}")
    return {o: n for o, n in sorted(operations.items()) if o not in STRUCTURE}


def _measure(
    name: str,
    functions: Mapping[str, Any],
    sizes: dict[str, int],
    above: tuple[str, ...] = (),
) -> int:
    """How many operations a function is, with those that it calls; kept in `sizes`."""
    if name in above:
        raise UsageError("its functions call each other in a circle")
    if name not in functions:
        raise UsageError(f"it needs {printable(name)!r}, which it does not hold")
    if name not in sizes:
        size = 0
        for node in functions[name]:
            called = [a.func.name for a in node.attr.values() if a.HasField("func")]
            size += 1 + sum(
                _measure(other, functions, sizes, (*above, name)) for other in called
            )
        sizes[name] = size
    if sizes[name] > LARGEST_GRAPH:
        raise UsageError(f"it is more than {LARGEST_GRAPH:,} operations")
    return sizes[name]


def _check_nodes(nodes: Any, allowed: set[str]) -> None:
    others = sorted({node.op for node in nodes} - allowed)
    if others:
        raise UsageError(
            f"a SavedModel must hold only operations of {sorted(NETWORK)} and of "
            f"scaling; got {', '.join(map(printable, others))}: they are no part of a "
            "MobileNet: leave the layers out that need them"
        )
    for node in nodes:
        for value in node.attr.values():
            if value.list.func or (value.HasField("func") and node.op not in CALLS):
                raise UsageError(f"its {node.op} {printable(node.name)!r} calls others")


def _count_numbers(nodes: Any) -> int:
    tensors = [value.tensor for node in nodes for value in node.attr.values()]
    return sum(math.prod(d.size for d in tensor.tensor_shape.dim) for tensor in tensors)
