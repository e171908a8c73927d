"""`.onnx` files: of the real converter, run by the real onnxruntime, or refused."""

import json
import os
import sys

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers
from onnx import TensorProto, helper

import keras_mobilenets as km
from keras_mobilenets.architecture.tables import NETWORKS, Bottleneck
from keras_mobilenets.deploy import read_classifier
from tests.deploy.conftest import NAMES, SMALL
from tests.deploy.networks import images, outputs, randomize

NETWORK = {"Conv", "Clip", "Gemm", "ReduceMean", "Softmax", "Transpose"}


def session_of(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options)


def logits_of(model, x):
    fused = km.fuse(model)
    return outputs(keras.Model(fused.input, fused.get_layer("logits").output), x)


@pytest.fixture(scope="module")
def exported(model, calibration, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "file.onnx"
    return path, km.export(model, path, calibration=calibration, labels=NAMES)


@pytest.fixture
def few_bottlenecks(monkeypatch):
    """V2 with a shortcut, and one more block that a stride of 8 dilates."""
    whole = NETWORKS["mobilenet_v2"]
    stem, *_, top = whole.rows
    rows = (
        *(stem, Bottleneck(1, 16, 1, 1), Bottleneck(6, 24, 2, 2)),
        *(Bottleneck(6, 32, 1, 2), Bottleneck(6, 32, 2, 2), top._replace(channels=64)),
    )
    monkeypatch.setitem(NETWORKS, "mobilenet_v2", whole._replace(rows=rows))


def test_what_the_file_says(exported, model):
    path, report = exported
    session, x = session_of(path), images(model, count=7, seed=9)
    (image,) = session.get_inputs()
    assert (image.name, image.shape) == ("image", ["batch", 32, 32, 3])
    assert [(o.name, o.shape) for o in session.get_outputs()] == [
        ("logits", ["batch", 5]),
        ("probabilities", ["batch", 5]),
    ]
    logits, probabilities = session.run(["logits", "probabilities"], {"image": x})
    expected = logits_of(model, x)
    assert np.ptp(expected) > 5
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(probabilities, outputs(model, x), atol=1e-6)
    assert report["proof"]["images"] == 64
    assert report["proof"]["agreement"] == 1
    assert report["latency"]["threads"] == 1


def test_what_is_in_the_file(exported):
    path, report = exported
    stored = onnx.load(path)
    onnx.checker.check_model(stored, full_check=True)
    assert [(o.domain, o.version) for o in stored.opset_import] == [("", 18)]
    assert set(report["operations"]) == NETWORK
    assert report["operations"]["Conv"] == 5
    assert (report["quantization"], report["batch"]) == (None, None)
    assert {"tf2onnx", "onnx", "onnxruntime"} <= set(report["versions"])
    texts = {entry.key: entry.value for entry in stored.metadata_props}
    assert texts["labels.txt"].splitlines() == [
        *("cat", "dog", "naïve\\n", "bird", "fish")
    ]
    assert json.loads(texts["keras_mobilenets.json"])["classes"] == NAMES
    beside = json.loads(path.with_name("file.onnx.json").read_text())
    assert beside | {"path": str(path)} == report


def test_it_is_read(exported, model):
    path, report = exported
    file = read_classifier(path)
    assert file.classes == tuple(NAMES)
    assert (file.shape, file.batch, file.threads) == ((32, 32, 3), None, 1)
    assert file.operations == report["operations"]
    x = images(model, count=40)  # more than go through at once
    np.testing.assert_allclose(file.probabilities(x), outputs(model, x), atol=1e-6)


def test_the_same_file_every_time(exported, model, calibration, tmp_path):
    path = tmp_path / "again.onnx"
    km.export(model, path, calibration=calibration, labels=NAMES)
    assert path.read_bytes() == exported[0].read_bytes()


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("mobilenet_v2", {"resolution": 33, "channels": 4}),
        ("mobilenet_v2", {"output_stride": 8, "padding": "symmetric"}),
        ("mobilenet_v1", {"separable": False, "activation": "relu"}),
        ("mobilenet_v1", {"output_stride": 8}),
    ],
)
def test_only_shortcuts_add(few_blocks, few_bottlenecks, tmp_path, name, variant):
    """Batch norm, biases and dilation leave no operation behind."""
    model = randomize(km.build(name, **SMALL | {"resolution": 64} | variant))
    report = km.export(model, tmp_path / "file.onnx")
    added = sum(isinstance(layer, layers.Add) for layer in model.layers)
    assert bool(added) is (name == "mobilenet_v2")
    assert report["operations"].get("Add", 0) == added
    others = {"Add", "Relu", "Pad", "Reshape"}
    assert set(report["operations"]) - others <= NETWORK
    x = images(model)
    said = session_of(tmp_path / "file.onnx").run(["logits"], {"image": x})[0]
    expected = logits_of(model, x)
    assert np.abs(said - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("mobilenet_v2", {"output_stride": 16}),
        ("mobilenet_v2", {"shortcut": "expansion", "activation": "relu"}),
        ("mobilenet_v2", {"linear_bottleneck": False, "shortcut": "none"}),
        ("mobilenet_v1", {"output_stride": 8, "padding": "symmetric"}),
        ("mobilenet_v1", {"shallow": True}),
    ],
)
@pytest.mark.parametrize("suffix", [".onnx", ""])
def test_whole_networks(name, variant, suffix, tmp_path):
    network = {"alpha": 0.35, "resolution": 65, "classes": 10, **variant}
    model = randomize(km.build(name, **network))
    proof = km.export(model, tmp_path / f"file{suffix}")["proof"]
    assert proof["agreement"] == 1
    largest = max(map(abs, proof["logits"]))
    assert proof["largest_logit_error"] <= 1e-5 * largest


def test_pixels_of_a_network_in_half_precision(few_blocks, tmp_path):
    """Grey, oblong, padded by operations, sigmoid."""
    network = {"channels": 1, "padding": "symmetric", "resolution": (32, 47)}
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = km.build(
            "mobilenet_v1", **SMALL | network, classifier_activation="sigmoid"
        )
    finally:
        keras.config.set_dtype_policy("float32")
    randomize(model)
    path = tmp_path / "grey.onnx"
    report = km.export(model, path, input="uint8")
    scaling = {"Cast": 1, "Mul": 1, "Sub": 1}
    assert report["operations"] | scaling == report["operations"]
    assert "Sigmoid" in report["operations"]
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 47, 1)).astype("uint8")
    logits, shares = session_of(path).run(
        ["logits", "probabilities"], {"image": pixels}
    )
    x = (pixels / 127.5 - 1).astype("float32")
    expected = logits_of(model, x)
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(shares, 1 / (1 + np.exp(-expected)), atol=1e-6)


def test_a_dense_layer_without_a_bias(few_blocks, model, tmp_path):
    features = model.get_layer("logits").input
    x = layers.Dense(5, use_bias=False, activation="softmax")(features)
    plain = keras.Model(model.input, x)
    report = km.export(plain, tmp_path / "file.onnx")
    assert report["operations"]["MatMul"] == 1


def test_other_layers_are_named(tmp_path):
    inputs = keras.Input((16, 16, 3))
    x = layers.MaxPooling2D()(layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)))
    with pytest.raises(km.UsageError, match="MaxPool.*: .*leave the layers out"):
        km.export(model, tmp_path / "file.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_converter_says_nothing(few_blocks, model, tmp_path, monkeypatch, capfd):
    """Nor does its import, which would change how much TensorFlow says later."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    for name in [name for name in sys.modules if name.split(".")[0] == "tf2onnx"]:
        monkeypatch.delitem(sys.modules, name)
    km.export(model, tmp_path / "file.onnx")
    assert capfd.readouterr() == ("", "")
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "1"


@pytest.mark.parametrize("module", ["tf2onnx", "onnx", "onnxruntime"])
def test_without_the_extra(exported, model, tmp_path, monkeypatch, module):
    path, _ = exported
    monkeypatch.setitem(sys.modules, module, None)
    wanted = rf"needs {module}, .*pip install 'keras_mobilenets\[onnx\]'"
    with pytest.raises(km.UsageError, match=wanted):
        km.export(model, tmp_path / "file.onnx")
    with pytest.raises(km.UsageError, match=wanted):
        read_classifier(path)
    assert list(tmp_path.iterdir()) == []


def node(op, *inputs, domain="", **attributes):
    return helper.make_node(op, list(inputs), ["new"], domain=domain, **attributes)


def first(change):
    """With another first node."""
    return lambda model: model.graph.node[0].CopyFrom(change(model.graph.node[0]))


def branch(old):
    graph = helper.make_graph([], "inner", [], [])
    changed = onnx.NodeProto()
    changed.CopyFrom(old)
    changed.attribute.append(helper.make_attribute("then_branch", graph))
    return changed


def outside(model):
    """Its weights are what another file holds."""
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def function(model):
    model.functions.append(
        helper.make_function("", "Conv", [], [], [], [helper.make_opsetid("", 18)])
    )


def domain(model):
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def without_words(model):
    del model.metadata_props[:]


def said_otherwise(**fields):
    def change(model):
        (text,) = (e for e in model.metadata_props if e.key == "keras_mobilenets.json")
        text.value = json.dumps(json.loads(text.value) | fields)

    return change


def wide(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 10**6


# What is wrong -> what is said; refused before anything is made of it, but the last.
HOSTILE = {
    "got Loop: they are no part": first(lambda _: node("Loop", "image")),
    "got evil.Conv: other code": first(lambda _: node("Conv", "image", domain="evil")),
    "those of com.microsoft": domain,
    "holds functions": function,
    "holds a graph or a tensor": first(branch),
    "weights are in other files": outside,
    "no keras_mobilenets.json": without_words,
}
WRONG = {
    "not the 5 that": said_otherwise(classes=["a"]),
    "are not names": said_otherwise(classes=[1] * 5),
    "squashing must be": said_otherwise(squashing="eval"),
    "cannot be used: 'eval_crop'": said_otherwise(preparation={}),
    "takes no images of one size": wide,
}


@pytest.mark.parametrize("message", HOSTILE | WRONG)
def test_files_that_are_none(exported, tmp_path, monkeypatch, message):
    model = onnx.load(exported[0])
    (HOSTILE | WRONG)[message](model)
    path = tmp_path / "file.onnx"
    path.write_bytes(model.SerializeToString())
    made = []
    make = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *a, **k: made.append(1) or make(*a, **k)
    )
    with pytest.raises(km.UsageError, match=message) as error:
        read_classifier(path)
    assert "\n" not in str(error.value)
    assert bool(made) is (message in WRONG)


def test_damage_is_never_more_than_an_error(exported, tmp_path):
    """Cut off anywhere, or bytes at random among those that say what the network is."""
    content = exported[0].read_bytes()
    path = tmp_path / "file.onnx"
    for size in (1, 9, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(km.UsageError, match="model must be an .onnx file"):
            read_classifier(path)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(30):
        damaged = bytearray(content)
        for place in rng.integers(2, 1500, 5):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_classifier(path)
        except km.UsageError:
            refused += 1
    assert refused > 0


def test_bytes_that_are_of_another_format_too(exported, tmp_path):
    """onnxruntime takes a file with ORTM in the fifth byte for one of its own."""
    model = onnx.load(exported[0])
    model.producer_name = "ORTM"
    path = tmp_path / "file.onnx"
    path.write_bytes(model.SerializeToString())
    assert path.read_bytes()[4:8] == b"ORTM"
    assert read_classifier(path).classes == tuple(NAMES)
