"""`.onnx` files: written by tf2onnx, checked, and run by onnxruntime.

The optional extra "onnx": its modules are imported in functions only. The texts of
`classifier.py` are in the model's metadata, under their names.
"""

from __future__ import annotations

import logging
import os
import pathlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_mobilenets.deploy.classifier import (
    ABOUT,
    Classifier,
    by_batches,
    classifier_of,
    texts_of,
    without_notices,
)
from keras_mobilenets.deploy.conversion import (
    SIGNATURE,
    as_pixels,
    make_signature,
    quietly,
)
from keras_mobilenets.deploy.network import BATCH, Network
from keras_mobilenets.errors import UsageError
from keras_mobilenets.startup import LEVEL
from keras_mobilenets.text import printable

MODULES = ("tf2onnx", "onnx", "onnxruntime")
OPSET = 18  # the newest that tf2onnx writes; of 2022
OUTPUTS = ("logits", "probabilities")
NETWORK = {
    *("Conv", "Clip", "Relu", "Add", "GlobalAveragePool", "ReduceMean", "Gemm"),
    *("MatMul", "Softmax", "Sigmoid"),
    "Pad",  # of padding="symmetric"
    *("Transpose", "Reshape"),  # to channels first, and back
}
SCALING = {"Cast", "Mul", "Sub"}  # of pixels, where the file takes these
DOMAINS = {"", "ai.onnx"}  # both names of ONNX' own operations
# The fields of an attribute that hold numbers and text, and nothing else.
PLAIN = {*("name", "type", "doc_string"), *("f", "i", "s", "floats", "ints", "strings")}


def write(
    path: pathlib.Path, network: Network, about: dict[str, Any], images: np.ndarray
) -> None:
    """Write a network as such a file, its batch open.

    Raises:
        UsageError: it has an operation that no MobileNet has.
    """
    import onnx

    model = _convert(network, about["input"])
    graph = model.graph
    graph.name, graph.doc_string = SIGNATURE, ""  # a name of TensorFlow's, with a count
    _merge_dense(graph)
    _name_batch(graph)
    _name_again(graph)
    used = {"", *(node.domain for node in graph.node)}
    for opset in list(model.opset_import):
        if opset.domain not in used:
            model.opset_import.remove(opset)
    onnx.helper.set_model_props(model, texts_of(about))
    check_network(model)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _convert(network: Network, input: str) -> Any:
    """What tf2onnx makes of a network, without a word."""
    logger = logging.getLogger("tf2onnx")
    before, level = logger.level, os.environ.get(LEVEL)
    try:
        with quietly():
            import tf2onnx  # sets how much TensorFlow says, for all that follow

            logger.setLevel(logging.CRITICAL)
            classify = make_signature(network, input)
            model, _ = tf2onnx.convert.from_function(
                classify, classify.input_signature, opset=OPSET
            )
    finally:
        logger.setLevel(before)
        if level is None:
            os.environ.pop(LEVEL, None)
        else:
            os.environ[LEVEL] = level
    return model


def _merge_dense(graph: Any) -> None:
    """A Dense layer as one Gemm; tf2onnx does it only where the batch is known."""
    import onnx

    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    reads = Counter(name for node in graph.node for name in node.input)
    products = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}
    for node in list(graph.node):
        product = products.get(node.input[0])
        if node.op_type != "Add" or product is None or reads[node.input[0]] > 1:
            continue
        (x, kernel), bias = product.input, node.input[1]
        if (ranks.get(kernel), ranks.get(bias)) == (2, 1):
            node.CopyFrom(
                onnx.helper.make_node("Gemm", [x, kernel, bias], node.output, node.name)
            )
            graph.node.remove(product)


def _name_batch(graph: Any) -> None:
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _name_again(graph: Any) -> None:
    """The same names every time; tf2onnx has counters of its process in them.

    An output is named after the layer that it is of, weights after who reads them.
    """
    kept = [value.name for value in (*graph.input, *graph.output)]
    named, taken = {name: name for name in ("", *kept)}, Counter(kept)

    def name_one(old: str, wanted: str) -> str:
        if old not in named:
            taken[wanted] += 1
            count = taken[wanted]
            named[old] = wanted if count == 1 else f"{wanted}_{count}"
        return named[old]

    for node in graph.node:
        node.name = node.name.split("__")[0]
        for place, old in enumerate(node.input):
            node.input[place] = name_one(old, f"{node.name}.{place}")
        for place, old in enumerate(node.output):
            node.output[place] = name_one(old, node.name)
        node.name = node.output[0]
    for tensor in graph.initializer:
        tensor.name = named.get(tensor.name, tensor.name)
    graph.initializer.sort(key=lambda tensor: tensor.name)
    del graph.value_info[:]


def count_operations(model: Any) -> dict[str, int]:
    """How often each operation is in a model, with its domain if that is not ONNX'."""
    found = Counter(
        node.op_type if node.domain in DOMAINS else f"{node.domain}.{node.op_type}"
        for node in model.graph.node
    )
    return dict(sorted(found.items()))


def check_network(model: Any) -> dict[str, int]:
    """The operations of a model, which are a MobileNet's; and it is alone a model.

    Raises:
        UsageError: it holds something else, with its cause.
    """
    graph, operations = model.graph, count_operations(model)
    others = sorted(set(operations) - NETWORK - SCALING)
    domains = sorted({opset.domain for opset in model.opset_import} - DOMAINS)
    if others:
        raise UsageError(
            f"an .onnx file must hold only operations of {sorted(NETWORK)} and of "
            f"scaling; got {', '.join(map(printable, others))}: {_cause(operations)}"
        )
    if domains:
        raise UsageError(
            "an .onnx file must hold ONNX' own operations only; got those of "
            f"{', '.join(map(printable, domains))}: other code would have to run them"
        )
    if model.functions or model.training_info or graph.sparse_initializer:
        raise UsageError("it holds functions, training or sparse weights: no network")
    for node in graph.node:
        for attribute in node.attribute:
            if not {field.name for field, _ in attribute.ListFields()} <= PLAIN:
                raise UsageError(
                    f"its {printable(node.name)!r} holds a graph or a tensor, which "
                    "no layer of a MobileNet does"
                )
    if any(
        tensor.external_data or tensor.data_location for tensor in graph.initializer
    ):
        raise UsageError(
            "its weights are in other files, which are not followed: save it with "
            "all data inside"
        )
    return operations


def _cause(operations: Mapping[str, int]) -> str:
    if any("." in name for name in operations):
        return "other code would have to run those of another domain"
    return "they are no part of a MobileNet: leave the layers out that need them"


def read(path: pathlib.Path, threads: int) -> Classifier:
    """Such a file, ready to run; whatever is wrong with it is raised."""
    import onnx
    import onnxruntime

    model = onnx.ModelProto.FromString(path.read_bytes())
    model.DiscardUnknownFields()  # what could not be checked
    operations = check_network(model)
    texts = {entry.key: entry.value for entry in model.metadata_props}
    if ABOUT not in texts:
        raise UsageError(f"it has no {ABOUT}, which says its classes")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # nothing: errors are raised
    # What was checked is what is run: these bytes could also be of another format.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    with without_notices():
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    (image,) = session.get_inputs()
    pixels = image.type == "tensor(uint8)"

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        given = as_pixels(images) if pixels else np.asarray(images, "float32")
        logits, probabilities = session.run(OUTPUTS, {image.name: given})
        return logits, probabilities

    return classifier_of(
        texts[ABOUT], by_batches(run, BATCH), image.shape, operations, threads
    )
