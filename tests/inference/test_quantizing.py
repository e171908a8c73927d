"""`fine_tune_quantized`: what it learns, gives back and refuses; and its file."""

import json

import keras
import numpy as np
import pytest

import keras_mobilenets as km
from keras_mobilenets.__main__ import main
from keras_mobilenets.deploy.fake_quantization import FakeQuantize
from keras_mobilenets.deploy.network import network_of
from keras_mobilenets.inference.quantizing import fine_tune
from tests.deploy.networks import outputs

ONE = {"epochs": 1, "verbose": False}


@pytest.fixture(scope="module")
def quantized(run):
    return km.fine_tune_quantized(run.workdir, **ONE)


def fresh(run, **options):
    """The data of the run, whose epochs count from the first."""
    return km.load_data(
        "digits", resolution=32, data_dir=run.report["data_dir"],
        recipe=km.recipes["quick"].replace(exif_orientation=False), **options,
    )  # fmt: skip


def test_its_file_needs_no_calibration(run, quantized, tmp_path):
    path = tmp_path / "file.tflite"
    report = km.export(
        quantized, path, quantization="int8", labels=run.report["classes"]
    )
    assert report["calibration"] is None
    result = km.evaluate(run.workdir, model=path, verbose=False)
    assert result["accuracy"] >= run.report["test"]["accuracy"] - 0.006
    last = quantized.get_layer("logits_steps")
    step = (float(last.high.value) - float(last.low.value)) / 255
    assert report["proof"]["rms_logit_error"] < 1.5 * step


def test_the_same_every_time(run, quantized):
    """Of a run, or of its model and data."""
    again = km.fine_tune_quantized(run.model, fresh(run), **ONE)
    for ours, theirs in zip(again.weights, quantized.weights, strict=True):
        assert ours.path == theirs.path
        np.testing.assert_array_equal(ours, theirs)


def test_kernels_are_as_in_a_file(run, quantized):
    fused = km.fuse(run.model)
    for name in ("stem", "block_1_depthwise", "logits"):
        kernel = np.array(quantized.get_layer(name).kernel)
        columns = kernel.reshape(
            -1, kernel.shape[-1 if name != "block_1_depthwise" else 2]
        )
        steps = columns / (np.abs(columns).max(axis=0) / 127)
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
        theirs = np.array(fused.get_layer(name).kernel)
        assert 1e-4 < np.abs(kernel - theirs).max() < 0.2 * np.abs(theirs).max()


def badly_scaled(run):
    """Channels of very different size between depthwise and pointwise convolutions.

    In half precision, and frozen, which are no matter.
    """
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = km.build(
            "mobilenet_v1", alpha=0.25, resolution=32, shallow=True, classes=10,
            activation="relu", classifier_activation=None,
        )  # fmt: skip
    finally:
        keras.config.set_dtype_policy("float32")
    model.set_weights(run.model.get_weights())
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if layer.name.endswith("depthwise_bn"):
            factor = np.exp(rng.uniform(-3, 3, layer.gamma.shape)).astype("float32")
            layer.gamma.assign(layer.gamma * factor)
            layer.beta.assign(layer.beta * factor)
            kernel = model.get_layer(
                layer.name.replace("depthwise_bn", "project")
            ).kernel
            kernel.assign(kernel / factor[:, None])
    model.trainable = False
    return model


@pytest.fixture(scope="module")
def won_back(run):
    model = badly_scaled(run)
    return model, *fine_tune(model, fresh(run), 2, 1e-3, False)


def test_what_calibration_loses_it_wins_back(won_back):
    model, _, report = won_back
    assert not model.trainable
    figures = report["validation"]
    assert figures["float32"]["divergence"] == 0
    assert figures["fine_tuned"]["divergence"] < figures["calibrated"]["divergence"] / 2
    assert figures["calibrated"]["accuracy"] < figures["float32"]["accuracy"] - 0.2
    assert figures["fine_tuned"]["accuracy"] > figures["calibrated"]["accuracy"] + 0.2


def test_figures_are_of_what_is_given_back(run, won_back):
    model, quantized, report = won_back
    splits = fresh(run)
    exact = network_of(model).logits
    right, divergence = [], []
    for images, labels in splits.validation.as_numpy_iterator():
        shares, said = (
            np.array(keras.ops.softmax(outputs(each, images)))
            for each in (exact, quantized)
        )
        right += (said.argmax(-1) == labels).tolist()
        divergence += (shares * np.log(shares / said)).sum(-1).tolist()
    figures = report["validation"]["fine_tuned"]
    assert figures["accuracy"] == pytest.approx(np.mean(right))
    assert figures["divergence"] == pytest.approx(np.mean(divergence), rel=1e-3)


def test_it_ends_as_the_model_did(run, quantized, won_back):
    assert quantized.layers[-1].name == "predictions"
    _, from_logits, _ = won_back
    assert isinstance(from_logits.layers[-1], FakeQuantize)
    assert {layer.compute_dtype for layer in from_logits.layers} == {"float32"}
    assert all(layer.trainable for layer in from_logits.layers)


def test_steps_that_are_too_long(run):
    """What was calibrated is given back, and that is said."""
    with pytest.warns(UserWarning, match="given as it was calibrated; a lower"):
        _, report = fine_tune(run.model, fresh(run), 1, 1e30, False)
    assert report["best_epoch"] == 0
    assert report["validation"]["fine_tuned"] == report["validation"]["calibrated"]


def test_on_the_command_line(run, tmp_path, capsys):
    path = tmp_path / "file.tflite"
    options = ["--quantization", "int8", "--fine-tune", "1", "--path", str(path)]
    assert main(["export", str(run.workdir), *options]) == 0
    said = capsys.readouterr().out
    assert "divergence" in said
    assert "fine-tuned" in said
    report = json.loads((tmp_path / "file.tflite.json").read_text())
    assert report["fine_tuning"]["epochs"] == 1
    assert report["calibration"] is None
    assert report["proof"]["source"] == "digits (test split)"


REFUSED = [
    ({"epochs": 0}, "epochs must be a whole number of at least 1.*calibrates"),
    ({"epochs": 1.5}, "epochs must be"),
    ({"learning_rate": 0}, "learning_rate must be a finite number above 0"),
    ({"learning_rate": -1.0}, "learning_rate must be"),
    ({"learning_rate": np.inf}, "learning_rate must be"),
    ({"verbose": 1}, "verbose must be"),
    ({"data": None}, "data must be Splits"),
    ({"data": np.zeros((40, 32, 32, 3))}, "data must be Splits"),
    ({"data_dir": "data"}, "data_dir is for the model of a run"),
    ({"model": 3}, "model must be a Keras model or the directory"),
    ({"model": "nowhere"}, "workdir must hold a finished run"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_is_refused(run, splits, options, message):
    with pytest.raises(km.UsageError, match=message):
        km.fine_tune_quantized(**{"model": run.model, "data": splits, **options})


def test_models_and_data_that_are_refused(run, quantized, splits):
    broken = keras.models.clone_model(run.model)
    broken.set_weights([w * np.nan for w in run.model.get_weights()])
    huge = keras.models.clone_model(run.model)
    huge.set_weights(run.model.get_weights())
    huge.get_layer("logits").bias.assign([3e38, -3e38] * 5)
    few = (
        np.zeros((40, 32, 32, 3), "uint8")
        + np.arange(40).astype("uint8")[:, None, None, None] * 6
    )
    other = {"train": (few, np.arange(40) % 2)}
    tagged = {"train": (few, [["a"], ["a", "b"]] * 20)}
    network = {"alpha": 0.25, "resolution": 32, "shallow": True, "classes": 2}
    two = km.build("mobilenet_v1", **network)
    for model, data, message in (
        (quantized, splits, "fine-tuned for 8 bits already"),
        (broken, splits, "weights that are numbers"),
        (huge, splits, "must give numbers"),
        (run.model, km.load_data("digits", resolution=48), "got Splits of .48, 48, 3"),
        (run.model, km.load_data(other, resolution=32, batch_size=8), "3. and 2"),
        (two, km.load_data(tagged, resolution=32, batch_size=8), "sigmoid"),
        (two, km.load_data({k: (v[0][:20], v[1][:20]) for k, v in other.items()},
                           resolution=32, batch_size=8), "data must have at least 32"),
    ):  # fmt: skip
        with pytest.raises(km.UsageError, match=message):
            km.fine_tune_quantized(model, data, **ONE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fine_tune": 0}, "fine_tune must be a whole number of at least 1"),
        (
            {"fine_tune": 1, "quantization": "float16"},
            "fine_tune is for quant.*float16",
        ),
        ({"fine_tune": 1, "learning_rate": 0}, "learning_rate must be"),
        ({"learning_rate": 1e-3}, "learning_rate is that of fine_tune"),
        ({"fine_tune": 1, "calibration": np.zeros((9, 32, 32, 3))}, "must be Splits"),
        ({"fine_tune": 1, "path": "a.txt"}, "path must"),
    ],
)
def test_exports_that_are_refused(run, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(km.UsageError, match=message):
        km.export(run.model, **{"path": "a.tflite", "quantization": "int8", **options})
    assert list(tmp_path.iterdir()) == []
