"""`.tflite` files, such as the authors' quantised networks, back as weights.

Kernels and biases are read out of the file by the order of its convolutions, as real
numbers: scale * (stored - zero point). Batch norm is folded into them. What the file
rounds between its layers, a network here does not: outputs are near, not equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from keras_mobilenets.architecture.plan import make_plan
from keras_mobilenets.architecture.tables import NETWORKS
from keras_mobilenets.errors import UsageError
from keras_mobilenets.models.weights.stored import (
    CLASSIFIER,
    WITH_BACKGROUND,
    Layers,
    Stored,
)

OPERATORS = {
    schema.BuiltinOperator.CONV_2D: "conv",
    schema.BuiltinOperator.DEPTHWISE_CONV_2D: "depthwise",
    schema.BuiltinOperator.FULLY_CONNECTED: "dense",
}
DTYPES = {
    schema.TensorType.FLOAT32: "<f4",
    schema.TensorType.FLOAT16: "<f2",
    schema.TensorType.INT32: "<i4",
    schema.TensorType.INT8: "i1",
    schema.TensorType.UINT8: "u1",
}
ACTIVATIONS = {
    schema.ActivationFunctionType.RELU6: "relu6",
    schema.ActivationFunctionType.RELU: "relu",
}


def read_tflite(path: str) -> Stored:
    """A MobileNetV1 or V2 as LiteRT runs it, in 8 bits, float16 or float32."""
    with open(path, "rb") as file:
        content = file.read()
    if content[4:8] != b"TFL3":
        raise UsageError("it is no LiteRT (TensorFlow Lite) file")
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    codes = [_code(model.operatorCodes[op.opcodeIndex]) for op in graph.operators]
    sources = {
        op.outputs[0]: op.inputs[0]
        for op, code in zip(graph.operators, codes, strict=True)
        if code == schema.BuiltinOperator.DEQUANTIZE  # float16, widened when run
    }
    found = [
        (OPERATORS[code], op)
        for op, code in zip(graph.operators, codes, strict=True)
        if code in OPERATORS
    ]
    layers: Layers = {}
    for name, (kind, op) in zip(_names([k for k, _ in found]), found, strict=True):
        _check_padding(name, op.builtinOptions)
        _, kernel, *bias = (sources.get(index, index) for index in op.inputs)
        value = _value(model, graph.tensors[kernel])
        layers[name] = {
            "kernel": value.T if kind == "dense" else value.transpose(1, 2, 3, 0)
        }
        if bias and bias[0] >= 0:
            layers[name]["bias"] = _value(model, graph.tensors[bias[0]])
        else:
            layers[name]["bias"] = np.zeros(value.shape[0], "float32")
    options = [op.builtinOptions for _, op in found]
    traits: dict[str, Any] = {
        "padding": "same",
        "activation": ACTIVATIONS.get(options[0].fusedActivationFunction, "none"),
    }
    if "block_2_expand" in layers:
        adds = schema.BuiltinOperator.ADD in codes
        traits["shortcut"] = "bottleneck" if adds else "none"
        traits["linear_bottleneck"] = not options[2].fusedActivationFunction
    classes = layers.get(CLASSIFIER, {}).get("bias", ())
    integers = _is_quantized(graph, found[0][1])
    return Stored(
        "LiteRT file of 8 bits" if integers else "LiteRT file",
        layers,
        traits,
        background=len(classes) == WITH_BACKGROUND,
    )


def _code(operator: schema.OperatorCodeT) -> int:
    """Old files have it in the first field, new ones in the second."""
    return max(operator.deprecatedBuiltinCode, operator.builtinCode)


def _names(kinds: list[str]) -> list[str]:
    """Layers of the plan, one for each convolution, where the kinds are a network's."""
    for network in NETWORKS:
        plan = [
            layer
            for layer in make_plan(network)
            if layer.kind in ("conv", "depthwise", "dense")
        ]
        for layers in (plan, plan[:-1]):
            wanted = [layer.kind for layer in layers]
            # The classifier may be a 1x1 convolution.
            if kinds == wanted or (
                wanted[-1] == "dense" and kinds == [*wanted[:-1], "conv"]
            ):
                return [layer.name for layer in layers]
    raise UsageError(
        f"its {len(kinds)} convolutions are not those of MobileNetV1 or V2"
    )


def _check_padding(name: str, options: Any) -> None:
    same = getattr(options, "padding", None) in (None, schema.Padding.SAME)
    if not same and getattr(options, "strideH", 1) > 1:
        raise UsageError(
            f"its {name} is padded by an operation before it; only files with SAME "
            "padding are read"
        )


def _value(model: schema.ModelT, tensor: schema.TensorT) -> np.ndarray:
    """The real numbers of a constant."""
    data = model.buffers[tensor.buffer].data
    name = tensor.name.decode() if isinstance(tensor.name, bytes) else tensor.name
    if data is None or tensor.type not in DTYPES:
        raise UsageError(f"its {name} is no constant of a kind that is read")
    stored = np.frombuffer(bytes(data), DTYPES[tensor.type]).reshape(tensor.shape)
    how = tensor.quantization
    if how is None or how.scale is None or not len(how.scale):
        return stored.astype("float32")
    shape = [1] * stored.ndim
    if len(how.scale) > 1:  # a scale for every channel
        shape[how.quantizedDimension] = -1
    scale = np.asarray(how.scale, "float64").reshape(shape)
    zero = np.asarray(how.zeroPoint, "float64").reshape(shape)
    return (scale * (stored - zero)).astype("float32")


def _is_quantized(graph: schema.SubGraphT, op: schema.OperatorT) -> bool:
    """Whether the kernel of an operator is of 8 bits."""
    kinds = (schema.TensorType.INT8, schema.TensorType.UINT8)
    return graph.tensors[op.inputs[1]].type in kinds
