"""`.tflite` files: what is in one, and running it.

Behind the network lies a zip ("associated files"), which every reader of zip files
finds, with the texts of `classifier.py`. The runtime ignores it.
"""

from __future__ import annotations

import io
import pathlib
import zipfile
from collections import Counter
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from keras_mobilenets.deploy.classifier import (
    ABOUT,
    LARGEST_ABOUT,
    Classifier,
    by_batches,
    classifier_of,
    texts_of,
    without_notices,
)
from keras_mobilenets.deploy.conversion import SIGNATURE, as_pixels, convert
from keras_mobilenets.deploy.network import Network
from keras_mobilenets.errors import UsageError
from keras_mobilenets.text import printable

NAMES = {
    number: name
    for name, number in vars(schema.BuiltinOperator).items()
    if isinstance(number, int)
}
NETWORK = {
    *("CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED"),
    *("SOFTMAX", "LOGISTIC"),
    "PAD",  # of padding="symmetric"
}
SCALING = {"CAST", "MUL", "SUB"}  # of pixels, where the file takes these
ROUNDING = {"QUANTIZE", "DEQUANTIZE"}
VARIABLES = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"}
CUSTOM = "CUSTOM"


def count_operations(content: bytes) -> dict[str, int]:
    """How often each operation is in a LiteRT file; those of TensorFlow by their names.

    >>> count_operations(content)["CONV_2D"]
    35
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    found: Counter[str] = Counter()
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            # Old files have it in the first field, new ones in the second.
            name = NAMES[max(code.deprecatedBuiltinCode, code.builtinCode)]
            if name == CUSTOM:
                name = f"{CUSTOM} {(code.customCode or b'').decode(errors='replace')}"
            found[name] += 1
    return dict(sorted(found.items()))


def check_operations(operations: dict[str, int]) -> None:
    """Only what a MobileNet needs, which every runtime of LiteRT has.

    Raises:
        UsageError: there is another, with its cause.
    """
    others = sorted(set(operations) - NETWORK - SCALING - ROUNDING)
    if not others:
        return
    cause = "they are no part of a MobileNet: leave the layers out that need them"
    if any(name in VARIABLES for name in others):
        cause = "its weights are no constants, so that it would say NaN"
    elif any(name.startswith(CUSTOM) for name in others):
        cause = "LiteRT has them not: they are of mixed precision, or of layers beyond"
    raise UsageError(
        f"a LiteRT file must hold only operations of {sorted(NETWORK)}, of scaling and "
        f"of rounding; got {', '.join(map(printable, others))}: {cause}"
    )


def with_about(content: bytes, about: dict[str, Any]) -> bytes:
    """The file with what is said of it behind it, the same bytes every time."""
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, text in texts_of(about).items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return buffer.getvalue()


def write(
    path: pathlib.Path, network: Network, about: dict[str, Any], images: np.ndarray
) -> None:
    """Write a network as such a file; `images` are for calibration.

    Raises:
        UsageError: LiteRT has not every operation of it.
    """
    content = convert(network, about["quantization"], images, about["input"])
    check_operations(count_operations(content))
    path.write_bytes(with_about(content, about))


def read(path: pathlib.Path, threads: int) -> Classifier:
    """Such a file, ready to run; whatever is wrong with it is raised."""
    return open_classifier(path.read_bytes(), threads)


def open_classifier(content: bytes, threads: int = 1) -> Classifier:
    """The same of what is in a file."""
    # It verifies the bytes before anything in them is followed.
    with without_notices():
        interpreter = Interpreter(model_content=content, num_threads=threads)
    operations = count_operations(content)
    check_operations(operations)
    with without_notices():
        interpreter.allocate_tensors()
    if SIGNATURE not in interpreter.get_signature_list():
        raise UsageError(f"it has no signature {SIGNATURE!r}")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if archive.getinfo(ABOUT).file_size > LARGEST_ABOUT:
            raise UsageError(f"its {ABOUT} is too large")
        about = archive.read(ABOUT)
    runner = interpreter.get_signature_runner(SIGNATURE)
    (image,) = runner.get_input_details().values()
    pixels = image["dtype"] == np.uint8

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        said = runner(image=as_pixels(images) if pixels else images.astype("float32"))
        return said["logits"], said["probabilities"]

    # One by one, as a device does: a file may have a batch of 1 only.
    classify = by_batches(run, 1)
    taken = [int(side) for side in image["shape_signature"]]
    return classifier_of(about, classify, taken, operations, threads)
