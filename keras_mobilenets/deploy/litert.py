"""`.tflite` files: what is in one, and running it.

Behind the network lies a zip ("associated files"), which every reader of zip files
finds: `labels.txt`, the classes, one a line, and `keras_mobilenets.json`, with them and
how an image is prepared. The runtime ignores it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from keras_mobilenets.architecture.arguments import check_choice
from keras_mobilenets.deploy.conversion import SIGNATURE, as_pixels
from keras_mobilenets.deploy.network import SQUASHING
from keras_mobilenets.errors import UsageError
from keras_mobilenets.recipe import Recipe, get_recipe
from keras_mobilenets.startup import stderr_to
from keras_mobilenets.text import printable

LABELS, ABOUT = "labels.txt", "keras_mobilenets.json"
# The fields of a recipe that decide how an image is prepared to be classified.
PREPARATION = ("eval_crop", "resize", "exif_orientation", "background_class")
LARGEST_ABOUT = 2**24  # bytes

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


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A file that can be run.

    `classify` maps images, float32 [n, height, width, channels] in [-1, 1], to logits
    and probabilities, float32 [n, classes] each. `recipe` says how an image is prepared
    for it, if the file does.
    """

    classify: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    shape: tuple[int, int, int]  # of an image: height, width, channels
    classes: tuple[str, ...]
    squashing: str
    recipe: Recipe | None

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Those of the logits: a file of 8 bits has its own in steps of 1/256."""
        logits = self.classify(images)[0].astype("float64")
        if self.squashing == "sigmoid":
            return (1 / (1 + np.exp(-logits))).astype("float32")
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return (powers / powers.sum(axis=-1, keepdims=True)).astype("float32")


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
    parts = {
        LABELS: "".join(f"{printable(name)}\n" for name in about["classes"]),
        ABOUT: json.dumps(about, indent=2) + "\n",
    }
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, text in parts.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return buffer.getvalue()


def describe(
    classes: Sequence[str],
    squashing: str,
    recipe: Recipe | None,
    input: str,
    quantization: str | None,
) -> dict[str, Any]:
    """What a file says of itself, ready for JSON."""
    prepared = None
    if recipe is not None:
        prepared = {name: getattr(recipe, name) for name in PREPARATION}
    return {
        "classes": list(classes),
        "squashing": squashing,
        "input": input,
        "quantization": quantization,
        "preparation": prepared,
    }


@contextlib.contextmanager
def _without_notices() -> Iterator[None]:
    """The runtime says on standard error which delegate it has made."""
    with tempfile.TemporaryFile() as notices, stderr_to(notices):
        yield


def read_classifier(path: str | os.PathLike[str], threads: int = 1) -> Classifier:
    """A file that `export` wrote, ready to run. No code that comes with it is run.

    Raises:
        UsageError: it is none, or damaged.
    """
    shown = os.fspath(path)
    if not os.path.isfile(path):
        raise UsageError(f"model must be a .tflite file; got {shown!r}: not a file")
    content = pathlib.Path(path).read_bytes()
    if content[4:8] != b"TFL3":
        raise UsageError(
            f"model must be a .tflite file, as km.export writes; got {shown!r}, which "
            "is none"
        )
    try:
        return open_classifier(content, threads)
    except Exception as error:  # of the runtime, zip, JSON, as the damage has it
        raise UsageError(
            f"model must be a .tflite file, as km.export writes; {shown!r} cannot be "
            f"used: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error


def open_classifier(content: bytes, threads: int = 1) -> Classifier:
    """The same of what is in a file; whatever is wrong with it is raised."""
    # It verifies the bytes before anything in them is followed.
    with _without_notices():
        interpreter = Interpreter(model_content=content, num_threads=threads)
    operations = count_operations(content)
    check_operations(operations)
    with _without_notices():
        interpreter.allocate_tensors()
    if SIGNATURE not in interpreter.get_signature_list():
        raise UsageError(f"it has no signature {SIGNATURE!r}")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if archive.getinfo(ABOUT).file_size > LARGEST_ABOUT:
            raise UsageError(f"its {ABOUT} is too large")
        about = json.loads(archive.read(ABOUT))
    runner = interpreter.get_signature_runner(SIGNATURE)
    (image,) = runner.get_input_details().values()
    pixels = image["dtype"] == np.uint8

    def classify(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        given = as_pixels(images) if pixels else np.asarray(images, "float32")
        # One by one, as a device does: a file may have a batch of 1 only.
        said = [runner(image=given[i : i + 1]) for i in range(len(given))]
        return tuple(  # type: ignore[return-value]
            np.concatenate([each[name] for each in said])
            for name in ("logits", "probabilities")
        )

    classes = tuple(about["classes"])
    outputs = runner.get_output_details()["probabilities"]["shape"]
    if len(classes) != outputs[-1] or not all(isinstance(c, str) for c in classes):
        raise UsageError(f"its classes are not the {outputs[-1]} that it tells apart")
    prepared = about["preparation"]
    if prepared is not None:
        fields = {name: prepared[name] for name in PREPARATION}
        prepared = get_recipe("quick").replace(**fields)
    height, width, channels = (int(side) for side in image["shape"][1:])
    squashing = check_choice("squashing", about["squashing"], tuple(SQUASHING))
    return Classifier(classify, (height, width, channels), classes, squashing, prepared)
