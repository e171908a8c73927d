"""Files that are run, and files that are not."""

import io
import json
import zipfile

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import keras_mobilenets as km
from keras_mobilenets.deploy import read_classifier
from keras_mobilenets.deploy.litert import check_operations, count_operations
from tests.deploy.conftest import NAMES
from tests.deploy.networks import images, outputs


@pytest.fixture(scope="module")
def content(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("litert") / "file.tflite"
    km.export(model, path, labels=NAMES)
    return path.read_bytes()


def network_in(content):
    """The file without what lies behind it, and that."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        start = min(info.header_offset for info in archive.infolist())
    return content[:start], content[start:]


def changed(content, change):
    """The file with another network."""
    network, about = network_in(content)
    model = schema.ModelT.InitFromPackedBuf(network, 0)
    change(model)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output()) + about


def said_otherwise(content, **fields):
    """The file with other words about it."""
    network, about = network_in(content)
    with zipfile.ZipFile(io.BytesIO(about)) as archive:
        words = json.loads(archive.read("keras_mobilenets.json"))
    buffer = io.BytesIO(network)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("keras_mobilenets.json", json.dumps(words | fields))
    return buffer.getvalue()


def test_a_file_is_read(content, model, tmp_path):
    path = tmp_path / "file.tflite"
    path.write_bytes(content)
    file = read_classifier(path)
    assert file.classes == tuple(NAMES)
    assert file.shape == (32, 32, 3)
    assert file.recipe is None
    x = images(model)
    np.testing.assert_allclose(file.probabilities(x), outputs(model, x), atol=1e-5)
    path.write_bytes(changed(content, lambda model: None))  # as ours, by another hand
    np.testing.assert_allclose(
        read_classifier(path).probabilities(x), outputs(model, x), atol=1e-5
    )


def operation(name, custom=None):
    """Makes the first operation another one."""

    def change(model):
        code = model.operatorCodes[model.subgraphs[0].operators[0].opcodeIndex]
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.customCode = custom

    return change


def unsigned(model):
    model.signatureDefs = None


WRONG = {
    "not a file": None,
    "which is none": lambda content: content[:4] + b"NONE" + content[8:],
    "cannot be used": lambda content: content[: len(content) // 2],
    "CUSTOM FlexConv2D.* mixed precision": lambda content: changed(
        content, operation("CUSTOM", "FlexConv2D")
    ),
    "READ_VARIABLE.* NaN": lambda content: changed(content, operation("READ_VARIABLE")),
    "got WHILE": lambda content: changed(content, operation("WHILE")),
    "no signature 'classify'": lambda content: changed(content, unsigned),
    "cannot be used: File is not a zip": lambda content: network_in(content)[0],
    "not the 5 that": lambda content: said_otherwise(content, classes=["a"]),
    "classes are not": lambda content: said_otherwise(content, classes=[1] * 5),
    "squashing must be": lambda content: said_otherwise(content, squashing="eval"),
    "eval_crop must be": lambda content: said_otherwise(
        content,
        preparation={
            "eval_crop": 7,
            "resize": "tf1",
            "exif_orientation": True,
            "background_class": False,
        },
    ),
    "cannot be used: 'preparation'": lambda content: said_otherwise(
        content, preparation={}
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_files_that_are_none(content, tmp_path, message):
    path = tmp_path / "file.tflite"
    if WRONG[message] is not None:
        path.write_bytes(WRONG[message](content))
    if message.endswith("'preparation'"):
        message = "cannot be used: 'eval_crop'"
    with pytest.raises(km.UsageError, match=message) as error:
        read_classifier(path)
    assert "\n" not in str(error.value)


def test_damage_is_never_more_than_an_error(content, tmp_path):
    """Bytes at random in the part that says what the network is."""
    path = tmp_path / "file.tflite"
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(30):
        damaged = bytearray(content)
        for place in rng.integers(8, 1000, 5):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_classifier(path)
        except km.UsageError:
            refused += 1
    assert refused > 0


def test_operations_are_counted(content):
    operations = count_operations(content)
    assert operations == {
        "CONV_2D": 3,
        "DEPTHWISE_CONV_2D": 2,
        "FULLY_CONNECTED": 1,
        "MEAN": 1,
        "SOFTMAX": 1,
    }
    check_operations(operations)
