"""The rule of loading, on files of this package: all but a classifier of others."""

import contextlib
import shutil
import warnings

import keras
import numpy as np
import pytest

import keras_mobilenets as km
from keras_mobilenets.models import load_weights
from tests.models.weights.networks import outputs, randomize

pytestmark = pytest.mark.usefixtures("few_blocks")

SMALL = {"alpha": 0.25, "resolution": 32, "classes": 3}


@pytest.fixture(scope="module")
def model(few_blocks):
    return randomize(km.build("mobilenet_v1", **SMALL))


@pytest.fixture(params=[".keras", ".weights.h5", ".h5"])
def file(request, model, tmp_path):
    path = tmp_path / f"saved{request.param}"
    (model.save_weights if "weights" in request.param else model.save)(path)
    return path


def build(**changed):
    network = {"name": "mobilenet_v1", **SMALL, **changed}
    return km.build(**{k: v for k, v in network.items() if v is not None})


def assert_equal(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_file_of_the_same_network_is_loaded_without_a_word(model, file):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="weights")
        again = build(weights=file)
    assert_equal(again.get_weights(), model.get_weights())


def test_a_classifier_of_other_classes_stays_new_and_that_is_said(model, file):
    with pytest.warns(UserWarning, match="0.25, 3 classes.*untrained: logits.* not 5"):
        again = build(weights=file, classes=5)
    assert_equal(again.get_weights()[:-2], model.get_weights()[:-2])
    assert again.get_layer("logits").kernel.shape == (32, 5)
    assert np.array(again.get_layer("logits").kernel).std() > 0


def test_features_of_a_file_with_a_classifier(model, file):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="weights")
        body = build(weights=file, include_top=False, pooling="avg")
    whole = keras.Model(model.inputs, model.get_layer("pool").output)
    np.testing.assert_array_equal(outputs(body), outputs(whole))


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_file_without_a_classifier(model, tmp_path, suffix):
    file = tmp_path / f"body{suffix}"
    body = randomize(build(include_top=False), seed=3)
    (body.save if suffix == ".keras" else body.save_weights)(file)
    with pytest.warns(UserWarning, match="no classifier.*untrained: logits"):
        whole = build(weights=file)
    assert_equal(whole.get_weights()[:-2], body.get_weights())


def test_what_was_loaded_is_told(model, file):
    loaded = load_weights(build(classes=7), file)
    assert loaded.as_dict() == {
        "file": str(file),
        "kind": loaded.kind,
        "network": "mobilenet_v1",
        "alpha": 0.25,
        "classes": 3,
        "layers": 10,
        "new": ["logits"],
        "adapted": ["its classifier is of 3 classes, not 7"],
    }
    assert str(loaded).count("\n") == 0
    assert load_weights(build(), str(file)).new == ()


def test_a_network_inside_a_larger_model(model, tmp_path):
    x = inputs = keras.Input((32, 32, 3))
    for layer in (keras.layers.RandomFlip(), model, keras.layers.Dense(2, name="head")):
        x = layer(x)
    larger = keras.Model(inputs, x)
    for file in (tmp_path / "larger.keras", tmp_path / "larger.h5"):
        larger.save(file)
        loaded = load_weights(again := build(), file)
        assert loaded.adapted == ("left out of the file: head",)
        assert_equal(again.get_weights(), model.get_weights())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"alpha": 0.5}, "MobileNetV1, alpha 0.25, 3 classes; asked for alpha 0.5"),
        (
            {"separable": False},
            "0.25, 3 classes; asked for one with block_1_conv",
        ),
        ({"name": "mobilenet_v2"}, "alpha 0.25, 3 classes; asked for MobileNetV2"),
    ],
    ids=str,
)
def test_a_file_of_another_network_is_refused(file, other, message):
    with pytest.raises(km.UsageError, match=f"weights file .* does not fit.*{message}"):
        build(weights=str(file), **other)


@pytest.mark.parametrize(
    "other",
    [{"activation": "relu"}, {"batch_norm_epsilon": 1e-5}, {"padding": "symmetric"}],
    ids=str,
)
def test_what_weights_do_not_show_is_compared_too(model, tmp_path, other):
    """They were taken, and outputs were others."""
    model.save(tmp_path / "saved.keras")
    ours = randomize(build(**other), seed=5)
    before = ours.get_weights()
    with pytest.raises(
        km.UsageError, match=f"does not fit.*Build it with {[*other][0]}"
    ):
        load_weights(ours, tmp_path / "saved.keras")
    assert_equal(ours.get_weights(), before)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")], ids=str)
def test_weights_that_are_no_numbers_are_refused(file, value):
    """They were taken, and predictions were NaN."""
    broken = build(weights=file)
    broken.get_layer("logits").bias.assign([0, 0, value])
    whole = ".weights" not in file.name
    (broken.save if whole else broken.save_weights)(file)
    ours = build()
    before = ours.get_weights()
    with pytest.raises(km.UsageError, match="logits/bias must be finite"):
        load_weights(ours, file)
    assert_equal(ours.get_weights(), before)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(km.UsageError, match=f"weights file '{file}' (cannot|does not)"):
        build(weights=file)


def test_a_damaged_file_is_refused(file):
    content = file.read_bytes()
    for start in range(0, 1024, 128):
        damaged = bytearray(content)
        damaged[start : start + 64] = b"\xff" * 64
        file.write_bytes(damaged)
        with contextlib.suppress(km.UsageError):  # where the damage matters
            build(weights=file)


def test_a_lambda_layer_is_refused_by_name(model, tmp_path):
    inputs = keras.Input((32, 32, 3))
    scaled = keras.layers.Lambda(lambda x: x / 2, name="scale")(inputs)
    for name in ("model.keras", "model.h5"):
        keras.Model(inputs, model(scaled)).save(tmp_path / name)
        with pytest.raises(km.UsageError, match="a Lambda layer .'scale'."):
            build(weights=tmp_path / name)


def test_a_file_of_something_else_says_what_is_in_it(tmp_path):
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="lonely")])
    for name in ("other.keras", "other.weights.h5", "other.h5"):
        (other.save_weights if "weights" in name else other.save)(tmp_path / name)
        with pytest.raises(km.UsageError, match="no MobileNetV1 or V2 .* lonely"):
            build(weights=tmp_path / name)


def test_two_networks_in_a_file(model, tmp_path):
    one, other = randomize(build()), randomize(build(), seed=1)
    one.name, other.name = "one", "other"
    inputs = keras.Input((32, 32, 3))
    both = keras.Model(inputs, keras.layers.Add()([one(inputs), other(inputs)]))
    both.save(tmp_path / "both.keras")
    with pytest.raises(km.UsageError, match="2 MobileNets"):
        build(weights=tmp_path / "both.keras")


def test_a_run(model, tmp_path):
    model.save(tmp_path / "model.keras")
    with pytest.raises(km.UsageError, match="a directory without"):
        build(weights=tmp_path)
    (tmp_path / "report.json").write_text("{}")
    assert_equal(build(weights=tmp_path).get_weights(), model.get_weights())
    shutil.rmtree(tmp_path)
    with pytest.raises(km.UsageError, match="not a file"):
        build(weights=tmp_path)


@pytest.mark.parametrize(
    "variant",
    [
        {"linear_bottleneck": False},
        {"shortcut": "none"},
        {"shortcut": "expansion"},
    ],
    ids=str,
)
def test_variations_of_v2_with_equal_weights_are_told_apart(tmp_path, variant):
    network = {"alpha": 0.1, "resolution": 32, "classes": 2}
    km.build("mobilenet_v2", **network, **variant).save(tmp_path / "saved.keras")
    km.build("mobilenet_v2", **network, **variant, weights=tmp_path / "saved.keras")
    with pytest.raises(km.UsageError, match=f"trained with {[*variant][0]}"):
        km.build("mobilenet_v2", **network, weights=tmp_path / "saved.keras")
