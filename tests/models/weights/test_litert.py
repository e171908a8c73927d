"""`.tflite` files, against what LiteRT's interpreter computes from them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

import keras_mobilenets as km
from keras_mobilenets.models import load_weights
from keras_mobilenets.models.weights.litert import _value
from tests.models.weights.networks import assert_same_outputs, images, randomize

SMALL = {"alpha": 0.25, "resolution": 32, "classifier_activation": None}


def convert(model, *, bits=32):
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if bits < 32:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if bits == 16:
        converter.target_spec.supported_types = [tf.float16]
    if bits == 8:
        calibration = images(model.input_shape[1], count=32)
        converter.representative_dataset = lambda: ([x[None]] for x in calibration)
    return converter.convert()


def run(content, x):
    """The logits of LiteRT's own interpreter."""
    interpreter = tf.lite.Interpreter(model_content=content)
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.fixture(scope="module")
def model(few_blocks):
    return randomize(km.build("mobilenet_v1", classes=1001, **SMALL))


@pytest.fixture(scope="module", params=[32, 16, 8])
def file(request, model, tmp_path_factory):
    path = tmp_path_factory.mktemp("litert") / f"{request.param}.tflite"
    path.write_bytes(convert(model, bits=request.param))
    return path


def test_outputs_are_the_interpreters(few_blocks, file):
    model = km.build("mobilenet_v1", classes=1001, **SMALL)
    loaded = load_weights(model, file)
    assert (loaded.alpha, loaded.classes, loaded.layers) == (0.25, 1001, 11)
    x = images(32)
    ours, theirs = np.array(model(x, training=False)), run(file.read_bytes(), x)
    if file.stem == "8":  # it rounds between its layers too
        assert loaded.kind == "LiteRT file of 8 bits"
        assert np.abs(ours - theirs).max() < 0.05 * np.ptp(theirs)
        assert (ours.argmax(-1) == theirs.argmax(-1)).mean() > 0.7
    else:
        assert_same_outputs(ours, theirs)


def test_the_background_and_other_networks(few_blocks, file):
    with pytest.warns(UserWarning, match="class 0, the background, was dropped"):
        km.build("mobilenet_v1", weights=file, **SMALL)
    with pytest.raises(km.UsageError, match="0.25, 1001 classes; asked for alpha 0.5"):
        km.build("mobilenet_v1", weights=file, **SMALL | {"alpha": 0.5})
    with pytest.raises(km.UsageError, match="activation='relu6'"):
        km.build("mobilenet_v1", weights=file, activation="relu", **SMALL)


@pytest.mark.slow
def test_v2(tmp_path):
    network = {"alpha": 0.35, "resolution": 65, "classifier_activation": None}
    source = randomize(km.build("mobilenet_v2", classes=10, **network))
    content = convert(source)
    (tmp_path / "v2.tflite").write_bytes(content)
    ours = km.build("mobilenet_v2", classes=10, **network)
    load_weights(ours, tmp_path / "v2.tflite")
    x = images(65)
    assert_same_outputs(np.array(ours(x, training=False)), run(content, x))


@pytest.mark.parametrize(
    ("scale", "zero_point", "dimension"),
    [([0.5], [128], 0), ([0.5, 2.0], [3, 128], 3)],
    ids=["per tensor", "per channel"],
)
def test_dequantisation(scale, zero_point, dimension):
    stored = np.random.default_rng(0).integers(0, 256, (1, 3, 3, 2)).astype("u1")
    model, tensor = schema.ModelT(), schema.TensorT()
    model.buffers = [schema.BufferT()]
    model.buffers[0].data = stored.ravel()
    tensor.buffer, tensor.shape, tensor.name = 0, stored.shape, b"kernel"
    tensor.type = schema.TensorType.UINT8
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = scale, zero_point
    tensor.quantization.quantizedDimension = dimension
    expected = (stored.astype("f8") - zero_point) * scale
    np.testing.assert_allclose(_value(model, tensor), expected, rtol=1e-6)


def test_files_that_are_none(few_blocks, model, tmp_path):
    inputs = keras.Input((32, 32, 3))
    other = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs))
    padded = km.build("mobilenet_v1", padding="symmetric", **SMALL)
    content = convert(model)
    for wrong, message in (
        (convert(other), "its 1 convolutions are not those"),
        (convert(padded), "its stem is padded by an operation"),
        (content[: len(content) // 2], "cannot be read"),
        (b"\x80\x02}q\x00.", "no LiteRT"),
    ):
        (tmp_path / "wrong.tflite").write_bytes(wrong)
        with pytest.raises(km.UsageError, match=message):
            km.build("mobilenet_v1", weights=tmp_path / "wrong.tflite", **SMALL)
