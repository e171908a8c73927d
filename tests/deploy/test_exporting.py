"""`export`: every kind of file, run by LiteRT's own runtime."""

import json
import zipfile

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers

import keras_mobilenets as km
from tests.deploy.conftest import NAMES, SMALL
from tests.deploy.networks import images, outputs, randomize

NETWORK = {"CONV_2D", "DEPTHWISE_CONV_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX"}
ROUNDING = {"QUANTIZE", "DEQUANTIZE"}
SCALING = {"CAST", "MUL", "SUB"}
# Kind -> operations besides, largest error of logits that span 15.
KINDS = {
    None: (set(), 1e-4),
    "float16": ({"DEQUANTIZE"}, 0.02),
    "dynamic": (set(), 0.1),
    "int8": (ROUNDING, 0.3),
    "int16x8": (ROUNDING, 0.1),
}


def runner_of(path):
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    assert list(interpreter.get_signature_list()) == ["classify"]
    return interpreter.get_signature_runner("classify")


def logits_of(model, x):
    """Of a model that ends in softmax."""
    before = keras.Model(model.input, model.layers[-1].input)
    return outputs(before, x)


@pytest.fixture(scope="module", params=KINDS)
def exported(request, model, calibration, tmp_path_factory):
    """The kind, the path and the report of a file."""
    path = tmp_path_factory.mktemp("files") / f"{request.param}.tflite"
    report = km.export(
        model, path, quantization=request.param, calibration=calibration, labels=NAMES
    )
    return request.param, path, report


def test_what_the_file_says(exported, model):
    kind, path, _ = exported
    run, x = runner_of(path), images(model, count=7, seed=9)
    said = run(image=x)  # seven at once: the batch is open
    assert set(said) == {"logits", "probabilities"}
    expected = logits_of(model, x)
    assert np.ptp(expected) > 5
    error = np.abs(said["logits"] - expected).max()
    assert error <= KINDS[kind][1]
    assert error > 0 or kind is None
    step = 1 / 256 if kind == "int8" else 1e-3
    powers = np.exp(said["logits"].astype("float64"))
    shares = powers / powers.sum(-1, keepdims=True)
    np.testing.assert_allclose(said["probabilities"], shares, atol=step)


def test_what_is_in_the_file(exported):
    kind, path, report = exported
    assert set(report["operations"]) == NETWORK | KINDS[kind][0]
    assert report["bytes"] == path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        lines = archive.read("labels.txt").decode().splitlines()
        about = json.loads(archive.read("keras_mobilenets.json"))
    assert lines == ["cat", "dog", "naïve\\n", "bird", "fish"]
    assert about["classes"] == NAMES
    assert about["quantization"] == kind
    beside = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert beside | {"path": str(path)} == report


def test_the_proof(exported, model, calibration):
    kind, path, report = exported
    proof = report["proof"]
    said = np.concatenate(
        [runner_of(path)(image=x[None])["logits"] for x in calibration]
    )
    expected = logits_of(model, calibration)
    assert proof["images"] == 64
    assert proof["agreement"] == (said.argmax(-1) == expected.argmax(-1)).mean()
    assert proof["sure_images"] >= 20
    error = np.abs(said - expected)
    assert proof["largest_logit_error"] == pytest.approx(error.max(), abs=1e-5)
    assert proof["rms_logit_error"] == pytest.approx(
        np.sqrt((error**2).mean()), abs=1e-5
    )
    latency = report["latency"]
    assert latency["threads"] == 1
    assert 0 < latency["least_ms"] <= latency["median_ms"]


@pytest.mark.parametrize("kind", [None, "int8"])
def test_pixels_go_in_as_they_are(kind, model, calibration, tmp_path):
    path = tmp_path / "pixels.tflite"
    report = km.export(
        model, path, quantization=kind, calibration=calibration, input="uint8"
    )
    assert set(report["operations"]) - NETWORK - ROUNDING <= SCALING
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype("uint8")
    said = runner_of(path)(image=pixels)["logits"]
    expected = logits_of(model, (pixels / 127.5 - 1).astype("float32"))
    assert np.abs(said - expected).max() <= KINDS[kind][1]


def test_a_background_of_another_kind(few_blocks, tmp_path):
    """Grey, oblong, padded by operations, sigmoid, in half precision, labels too."""
    network = {
        "channels": 1,
        "padding": "symmetric",
        "classifier_activation": "sigmoid",
    }
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = km.build("mobilenet_v1", **SMALL | {"resolution": (32, 47)}, **network)
    finally:
        keras.config.set_dtype_policy("float32")
    randomize(model)
    x = images(model, count=40)
    expected = outputs(km.fuse(model), x)
    path = tmp_path / "grey.tflite"
    batches = [(x[:30], expected[:30].argmax(-1)), (x[30:], expected[30:].argmax(-1))]
    report = km.export(model, path, calibration=batches)
    assert set(report["operations"]) == NETWORK - {"SOFTMAX"} | {"PAD", "LOGISTIC"}
    assert report["image"] == [32, 47, 1]
    assert report["proof"]["accuracy"] == 1
    said = runner_of(path)(image=x)["probabilities"]
    np.testing.assert_allclose(said, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("mobilenet_v2", {}),
        ("mobilenet_v2", {"shortcut": "expansion", "activation": "relu"}),
        ("mobilenet_v2", {"linear_bottleneck": False, "shortcut": "none"}),
        ("mobilenet_v2", {"expansion": 3}),
        ("mobilenet_v1", {"shallow": True}),
        ("mobilenet_v1", {"separable": False}),
    ],
)
def test_variants_need_no_other_operation(name, variant, tmp_path):
    network = {"alpha": 0.35, "resolution": 65, "classes": 10, **variant}
    model = randomize(km.build(name, **network))
    report = km.export(model, tmp_path / "file.tflite")
    assert set(report["operations"]) <= NETWORK | {"ADD"}
    assert report["proof"]["largest_logit_error"] <= 1e-4
    assert report["proof"]["source"] == "32 made up"


def test_dilation_needs_no_other_operation(few_blocks, tmp_path):
    model = km.build("mobilenet_v1", **SMALL, output_stride=16)
    (dilated,) = (layer for layer in model.layers if layer.name == "block_2_depthwise")
    config = model.get_config()
    for layer in config["layers"]:
        if layer["name"] == dilated.name:
            layer["config"].update(strides=(1, 1), dilation_rate=(2, 2))
    model = randomize(keras.Model.from_config(config))
    report = km.export(model, tmp_path / "dilated.tflite")
    assert set(report["operations"]) == NETWORK
    assert report["batch"] == 1


def test_the_same_file_every_time(model, calibration, tmp_path):
    for name in ("one", "two"):
        path = tmp_path / f"{name}.tflite"
        km.export(model, path, quantization="int8", calibration=calibration)
    one, two = (tmp_path / f"{name}.tflite" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_networks_that_end_otherwise(few_blocks, tmp_path):
    """In logits, or in a Dense with its softmax, as keras.applications' V2 does."""
    logits = randomize(km.build("mobilenet_v1", **SMALL, classifier_activation=None))
    x = images(logits)
    features = logits.get_layer("logits").input
    dense = layers.Dense(5, activation="softmax", name="predictions")
    softmax = keras.Model(logits.input, dense(features))
    dense.set_weights(logits.get_layer("logits").get_weights())
    for number, model in enumerate((logits, softmax)):
        path = tmp_path / f"{number}.tflite"
        km.export(model, path)
        said = runner_of(path)(image=x)
        np.testing.assert_allclose(said["logits"], outputs(logits, x), atol=1e-5)
        np.testing.assert_allclose(
            said["probabilities"], outputs(softmax, x), atol=1e-6
        )
    assert dense.activation is keras.activations.softmax  # the user's is left alone


def test_a_file_that_says_something_else_is_kept_aside(few_blocks, model, tmp_path):
    """A class that never wins takes the range, so that the others cannot be told."""
    wide = km.build("mobilenet_v1", **SMALL)
    wide.set_weights(model.get_weights())
    bias = wide.get_layer("logits").bias
    bias.assign([*np.asarray(bias)[:4], -5000.0])
    for number in (1, 2):
        with pytest.raises(km.ExportFailed, match="Try more images") as failure:
            km.export(
                wide,
                tmp_path / "wide.tflite",
                quantization="int8",
                calibration=images(model, count=64),
            )
        aside = tmp_path / f"wide.rejected-{number}.tflite"
        assert str(aside) in str(failure.value)
        assert "must agree on 90.0%" in str(failure.value)
        beside = json.loads((tmp_path / f"{aside.name}.json").read_text())
        assert beside["proof"]["agreement"] < 0.9
        assert aside.stat().st_size == beside["bytes"]
    assert not (tmp_path / "wide.tflite").exists()


def stacked(layer):
    """A network of Keras' own layers, with this one before its classifier."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, strides=2)(inputs)
    return keras.Model(inputs, layers.Dense(5)(layers.Flatten()(layer(x))))


GOOD = np.random.default_rng(0).uniform(-1, 1, (40, 32, 32, 3)).astype("float32")
INT8 = {"quantization": "int8", "calibration": GOOD}

REFUSED = [
    ({"quantization": "int9"}, "did you mean 'int8'"),
    ({"input": "pixels"}, "input must be one of"),
    ({"bias_correction": 1}, "bias_correction must be"),
    ({"quantization": "int16x8", "input": "uint8"}, "take int8, or input='float32'"),
    ({"labels": ["a", "b"]}, "the 5 classes of the model, in order; got 2"),
    ({"labels": "abcde"}, "labels must be the names"),
    ({"path": "file.h5"}, "a .tflite file.*, by its suffix"),
    ({"path": "nowhere/file.tflite"}, "in a folder that can be written"),
    ({"path": None}, "path must be that of a new file, a .tflite file.*; got None"),
    ({"data_dir": "data"}, "data_dir is for the model of a run"),
    (INT8 | {"calibration": None}, "must be given for int8"),
    (INT8 | {"calibration": GOOD[:1]}, "at least 32 images; got 1"),
    (INT8 | {"calibration": (GOOD + 1) / 2}, r"from .* to 1 only"),
    (INT8 | {"calibration": GOOD * 255}, "images / 127.5 - 1"),
    (INT8 | {"calibration": (GOOD * 100).astype("uint8")}, "images / 127.5 - 1"),
    (INT8 | {"calibration": GOOD * np.nan}, "scaled to"),
    (INT8 | {"calibration": GOOD[:, :16]}, r"got float32 \(40, 16, 32, 3\)"),
    (INT8 | {"calibration": "digits"}, "must be Splits of km.load_data"),
    (INT8 | {"calibration": []}, "got none"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_refused_before_anything_is_written(
    model, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(km.UsageError, match=message):
        km.export(model, **{"path": "file.tflite", **options})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file.tflite", "file.tflite.json"])
def test_nothing_is_overwritten(model, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(km.UsageError, match=f"new file; .*{name}' exists"):
        km.export(model, tmp_path / "file.tflite")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_splits_of_other_images(model, tmp_path):
    splits = km.load_data("digits", resolution=48)
    with pytest.raises(
        km.UsageError, match=r"\(32, 32, 3\); got Splits of \(48, 48, 3"
    ):
        km.export(model, tmp_path / "file.tflite", calibration=splits)


def features(model):
    return keras.Model(model.input, model.get_layer("pool").output)


def without_numbers(model):
    broken = km.build("mobilenet_v1", **SMALL)
    broken.set_weights(model.get_weights())
    broken.get_layer("logits").bias.assign([np.inf, 0, 0, 0, 0])
    return broken


MODELS = [
    (features, "ends in features"),
    (without_numbers, "must have weights that are numbers"),
    (lambda _: stacked(layers.MaxPooling2D()), "MAX_POOL_2D.*leave the layers out"),
    (lambda _: stacked(layers.UnitNormalization()), "must hold only operations"),
    (lambda _: keras.Sequential([keras.Input((4,)), layers.Dense(3)]), "images of one"),
]


@pytest.mark.parametrize(("make", "message"), MODELS)
def test_models_that_cannot_be_exported(few_blocks, model, tmp_path, make, message):
    with pytest.raises(km.UsageError, match=message):
        km.export(make(model), tmp_path / "file.tflite")
    assert list(tmp_path.iterdir()) == []


def test_what_float16_does_not_hold(few_blocks, model, tmp_path):
    large = km.build("mobilenet_v1", **SMALL)
    large.set_weights(model.get_weights())
    gamma = large.get_layer("block_1_project_bn").gamma
    gamma.assign(np.full(gamma.shape, 1e6))
    with pytest.raises(
        km.UsageError, match="block_1_project/kernel.* export in float32"
    ):
        km.export(large, tmp_path / "file.tflite", quantization="float16")


@pytest.mark.parametrize("kind", [None, "float16"])
def test_a_network_that_has_learned_nothing(kind, few_blocks, tmp_path):
    """Its scores are all but equal: which is the first says nothing of the file."""
    model = km.build("mobilenet_v1", **SMALL)
    path = tmp_path / "new.tflite"
    report = km.export(model, path, quantization=kind)
    assert report["proof"]["agreement"] == 1
    assert report["proof"]["sure_images"] == 0
    assert path.is_file()
