"""Rounded kernels, and biases that make up for them."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_mobilenets as km
from keras_mobilenets.deploy.correction import correct, round_kernel
from keras_mobilenets.models.weights.litert import read_tflite
from tests.deploy.networks import images, outputs, randomize


def test_kernels_are_rounded_as_the_converter_does(model, calibration, tmp_path):
    path = tmp_path / "file.tflite"
    options = {"quantization": "int8", "calibration": calibration}
    km.export(model, path, bias_correction=False, **options)
    stored, fused = read_tflite(path).layers, km.fuse(model)
    assert len(stored) == 6
    for name, values in stored.items():
        layer = fused.get_layer(name)
        kernel = values["kernel"]
        if isinstance(layer, layers.DepthwiseConv2D):
            kernel = kernel.reshape(layer.kernel.shape)
        np.testing.assert_allclose(round_kernel(layer), kernel, atol=1e-6)
        assert np.abs(kernel - np.array(layer.kernel)).max() > 1e-4


def test_a_channel_of_zeros_stays():
    layer = layers.Dense(2)
    layer.build((None, 3))
    layer.kernel.assign([[0, 1], [0, -0.5], [0, 0.25]])
    rounded = round_kernel(layer)
    assert rounded[:, 0].numpy().tolist() == [0, 0, 0]
    np.testing.assert_allclose(rounded[:, 1] * 127, [127, -64, 32], atol=1e-4)


@pytest.mark.parametrize("bits", [8, 16])
def test_means_are_those_before(few_blocks, model, calibration, bits):
    """Of every channel of the logits, over the images that were used."""
    fused = km.fuse(model)
    network = keras.Model(fused.input, fused.get_layer("logits").output)
    before = outputs(network, calibration)
    plain = [np.array(weight) for weight in network.weights]
    correct(network, calibration, bits)
    corrected = outputs(network, calibration)
    for layer in network.layers:  # the same without the correction
        if layer.weights:
            layer.bias.assign(
                plain[[w.path for w in network.weights].index(layer.bias.path)]
            )
    shift = np.abs((outputs(network, calibration) - before).mean(0)).max()
    assert shift > 0.02
    # With 8 bits it makes up for rounded activations too, which Keras does not round.
    assert np.abs((corrected - before).mean(0)).max() < (
        1e-4 if bits == 16 else shift / 2
    )


def test_shortcuts_and_operations(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(3, 3, padding="same", name="one")(inputs)
    y = layers.DepthwiseConv2D(3, padding="same", name="two")(layers.ReLU()(x))
    x = layers.Add()([x, y]) + inputs  # of a layer, and of keras.ops
    network = keras.Model(inputs, layers.Dense(4)(layers.GlobalMaxPooling2D()(x)))
    randomize(network)
    x = images(network, count=50)
    before = outputs(network, x)
    correct(network, x, bits=16)
    after = outputs(network, x)
    assert 0 < np.abs(after - before).max() < 0.1
    np.testing.assert_allclose(after.mean(0), before.mean(0), atol=1e-4)


def test_the_users_model_is_left_alone(model, calibration, tmp_path):
    before = [value.copy() for value in model.get_weights()]
    km.export(
        model, tmp_path / "f.tflite", quantization="int8", calibration=calibration
    )
    for value, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, old)
