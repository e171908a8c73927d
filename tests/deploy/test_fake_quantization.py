"""Networks that round as their files do, and these files."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers

import keras_mobilenets as km
from keras_mobilenets.deploy.correction import ROUNDED, round_kernel
from keras_mobilenets.deploy.fake_quantization import FakeQuantize, fake_quantize
from keras_mobilenets.deploy.network import network_of
from tests.deploy.conftest import SMALL
from tests.deploy.networks import images, outputs, randomize


def rounded(model, calibration):
    """The model as fine-tuning begins with it."""
    made = fake_quantize(network_of(model).logits, calibration)
    for layer in made.layers:
        if isinstance(layer, ROUNDED):
            layer.kernel.assign(round_kernel(layer))
    return made


@pytest.fixture(scope="module")
def quantized(model, calibration):
    """From images to logits."""
    return rounded(model, calibration)


@pytest.fixture(scope="module")
def exported(quantized, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "file.tflite"
    return path, km.export(quantized, path, quantization="int8")


def test_it_rounds_where_litert_does(model, quantized, calibration):
    names = [la.name for la in quantized.layers if isinstance(la, FakeQuantize)]
    assert names == [
        f"{name}_steps"
        for name in (
            "image",
            "stem_relu",
            *(
                f"block_{k}_{part}_relu"
                for k in (1, 2)
                for part in ("depthwise", "project")
            ),
            "pool",
            "logits",
        )
    ]
    exact = network_of(model).logits
    last = quantized.layers[-1]
    for end, of in ((last.low, np.min), (last.high, np.max)):
        assert float(end.value) == pytest.approx(of(outputs(exact, calibration)), 1e-5)
    error = np.abs(outputs(quantized, calibration) - outputs(exact, calibration))
    assert 0.01 < error.max() < 0.5


@pytest.mark.parametrize("pixels", [False, True])
def test_a_file_without_calibration(pixels, quantized, exported, calibration, tmp_path):
    path, report = exported
    operations = {"QUANTIZE": 1, "DEQUANTIZE": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 2}
    operations |= {"MEAN": 1, "FULLY_CONNECTED": 1, "SOFTMAX": 1}
    x = calibration
    if pixels:
        path = tmp_path / "pixels.tflite"
        report = km.export(quantized, path, quantization="int8", input="uint8")
        operations |= {"MUL": 1, "SUB": 1}
        x = np.clip(np.round((x + 1) * 127.5), 0, 255).astype("uint8")
    assert report["operations"] == operations
    assert report["calibration"] is None
    assert report["proof"]["agreement"] == 1
    runner = Interpreter(model_path=str(path)).get_signature_runner("classify")
    error = runner(image=x)["logits"] - outputs(quantized, calibration)
    last = quantized.layers[-1]
    step = (float(last.high.value) - float(last.low.value)) / 255
    assert np.sqrt((error**2).mean()) < (2 if pixels else 1) * step


def test_a_file_has_the_ranges_of_the_model(exported, quantized):
    path, _ = exported
    interpreter = Interpreter(model_path=str(path))
    scales = {
        float(t["quantization_parameters"]["scales"][0])
        for t in interpreter.get_tensor_details()
        if t["dtype"] == np.int8 and t["quantization_parameters"]["scales"].size == 1
    }
    for layer in quantized.layers:
        if isinstance(layer, FakeQuantize):
            step = (float(layer.high.value) - float(layer.low.value)) / 255
            assert min(abs(scale / step - 1) for scale in scales) < 1e-4


def test_it_is_kept_in_a_file_of_keras(quantized, calibration, tmp_path):
    quantized.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        outputs(loaded, calibration), outputs(quantized, calibration)
    )
    report = km.export(loaded, tmp_path / "file.tflite", quantization="int8")
    assert report["operations"]["DEQUANTIZE"] == 2


def test_gradients_are_those_of_tensorflow():
    layer = FakeQuantize()
    x = tf.constant(np.random.default_rng(0).normal(0, 1, 1000).astype("float32"))
    layer(x)
    layer.low.assign(-51 / 128)  # so that zero is a step, and nothing is moved
    layer.high.assign(204 / 128)
    weights = tf.linspace(0.5, 1.5, 1000)
    low, high = layer.low.value, layer.high.value
    found = []
    for rounding in (
        lambda: layer(x, training=True),
        lambda: tf.quantization.fake_quant_with_min_max_vars(x, low, high),
    ):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = rounding()
            total = tf.reduce_sum(weights * y)
        found.append([y, *tape.gradient(total, [x, low, high])])
    ours, theirs = found
    assert tf.unique(tf.round(theirs[0] * 1e4)).y.shape[0] > 100
    assert all(float(abs(gradient)) > 1 for gradient in ours[2:])
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_zero_stays_a_step():
    layer = FakeQuantize()
    layer(tf.zeros([1]))
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.apply([tf.constant(-3.0), tf.constant(5.0)], [layer.low, layer.high])
    assert float(layer.low.value) == 0
    assert 0 < float(layer.high.value) < 1e-5
    assert np.isfinite(layer(tf.constant([-1.0, 0, 2]))).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("mobilenet_v2", {}),
        ("mobilenet_v2", {"linear_bottleneck": False, "activation": "relu"}),
        ("mobilenet_v2", {"output_stride": 16, "resolution": 65}),
        ("mobilenet_v2", {"padding": "symmetric", "channels": 4}),
        ("mobilenet_v1", {"separable": False, "channels": 1}),
        ("mobilenet_v1", {"classifier_activation": "sigmoid", "resolution": (47, 64)}),
    ],
)
def test_variants(name, network, tmp_path):
    model = randomize(km.build(name, **SMALL | {"alpha": 0.35} | network))
    x = images(model, count=40)
    quantized = rounded(model, x)
    exact = network_of(model).logits
    lost = outputs(quantized, x) - outputs(exact, x)
    if network.get("classifier_activation"):
        squash = layers.Activation("sigmoid")
        quantized = keras.Model(quantized.inputs[0], squash(quantized.outputs[0]))
    options = {"quantization": "int8", "calibration": x}  # which proves only
    report = km.export(quantized, tmp_path / "file.tflite", **options)
    # A step here or there, in layer after layer, comes to what all steps lose:
    rms = np.sqrt((lost**2).mean())
    assert report["proof"]["rms_logit_error"] < 1.5 * rms
    assert 0 < rms < 0.1 * np.ptp(outputs(exact, x))
    assert report["batch"] == (1 if "output_stride" in network else None)


def test_other_kinds_of_file_are_refused(quantized, tmp_path):
    for kind in (None, "float16", "dynamic", "int16x8"):
        with pytest.raises(km.UsageError, match="must be 'int8' for a model that was"):
            km.export(quantized, tmp_path / "file.tflite", quantization=kind)
    with pytest.raises(km.UsageError, match="a FakeQuantize with code of its own"):
        km.fuse(quantized)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_lost_a_range(quantized, tmp_path):
    x = quantized.input
    for layer in quantized.layers[1:]:
        if layer.name != "block_1_project_relu_steps":
            x = layer(x)
    with pytest.raises(km.UsageError, match="some of its FakeQuantize are gone"):
        km.export(
            keras.Model(quantized.input, x), tmp_path / "f.tflite", quantization="int8"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "layer", [layers.MaxPooling2D(), layers.Activation("swish"), layers.Softmax()]
)
def test_layers_that_are_not_known(layer):
    inputs = keras.Input((8, 8, 3))
    x = layers.Flatten()(layer(layers.Conv2D(4, 3)(inputs)))
    network = keras.Model(inputs, layers.Dense(5)(x))
    with pytest.raises(km.UsageError, match=f"{layer.name!r} is another"):
        fake_quantize(network, np.zeros((1, 8, 8, 3), "float32"))


def test_shared_layers_and_operations(tmp_path):
    """A layer in two places has two ranges; Keras' own operations are layers too."""
    inputs = keras.Input((32, 32, 3))
    conv = layers.Conv2D(3, 3, padding="same", use_bias=False)
    x = layers.Activation("relu6")(conv(conv(inputs)) + inputs)
    x = layers.GlobalAveragePooling2D()(layers.ZeroPadding2D()(x))
    model = randomize(keras.Model(inputs, layers.Dense(5)(x)))
    quantized = rounded(model, images(model, count=40))
    names = {layer.name for layer in quantized.layers}
    assert {f"{conv.name}_steps", f"{conv.name}_steps_2"} <= names
    report = km.export(quantized, tmp_path / "file.tflite", quantization="int8")
    assert set(report["operations"]) >= {"ADD", "PAD"}
    assert report["proof"]["rms_logit_error"] < 0.02
