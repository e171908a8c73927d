import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mobilenets as km
from keras_mobilenets.training.losses import (
    SmoothedCrossentropy,
    WeightDecay,
    decayed_weights,
)

LOGITS = np.random.default_rng(0).normal(0, 3, (6, 5)).astype("float32")
LABELS = np.array([0, 4, 2, 2, 1, 3])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equal_to_tensorflow_1(smoothing):
    reference = tf.compat.v1.losses.softmax_cross_entropy(
        tf.one_hot(LABELS, 5), LOGITS, label_smoothing=smoothing
    )
    ours = SmoothedCrossentropy(smoothing)(LABELS, LOGITS)
    assert float(ours) == pytest.approx(float(reference), rel=1e-6)
    probabilities = tf.nn.softmax(LOGITS)
    of_probabilities = SmoothedCrossentropy(smoothing, from_logits=False)
    assert float(of_probabilities(LABELS[:, None], probabilities)) == pytest.approx(
        float(reference), rel=1e-5
    )


@pytest.mark.parametrize("label", [-1, 5, 2.5, float("nan")], ids=str)
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_labels_out_of_range_are_refused_in_the_step(label, graph):
    """They were trained on without a word, with a loss that looked better."""
    loss = SmoothedCrossentropy(0.1)
    loss = tf.function(loss) if graph else loss
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="whole numbers from 0 to 4"
    ):
        loss(tf.constant([0, label, 1.0]), LOGITS[:3])


def test_labels_of_another_shape_are_refused():
    """One-hot labels ended in a TypeError or an error of shapes."""
    for shape in ((6, 5), (6, 1, 1), ()):
        with pytest.raises(km.UsageError, match="shape.*tf.argmax"):
            SmoothedCrossentropy()(np.zeros(shape), LOGITS)


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, "x", float("nan")], ids=str)
def test_smoothing_is_a_share(smoothing):
    with pytest.raises(km.UsageError, match="label_smoothing must be"):
        SmoothedCrossentropy(smoothing)


def test_weight_decay_is_half_the_squared_norm():
    w = np.array([[3.0, 4.0]], "float32")
    assert float(WeightDecay(4e-5)(w)) == pytest.approx(4e-5 / 2 * 25)


@pytest.mark.parametrize(
    ("name", "kernels"), [("mobilenet_v1", 15), ("mobilenet_v2", 36)]
)
def test_kernels_are_decayed_and_nothing_else(name, kernels):
    model = km.build(name, alpha=0.25, resolution=32, classes=3)
    chosen = [v.path for v in decayed_weights(model, "kernels")]
    assert len(chosen) == kernels
    assert not [path for path in chosen if "depthwise" in path or "bias" in path]
    everything = decayed_weights(model, "all")
    assert len(everything) == len(model.trainable_variables)


@pytest.mark.parametrize(
    ("layer", "shape", "decayed"),
    [
        (keras.layers.SeparableConv2D(4, 3), (8, 8, 3), ["pointwise_kernel"]),
        (keras.layers.SeparableConv1D(4, 3), (8, 3), ["pointwise_kernel"]),
        (keras.layers.DepthwiseConv2D(3), (8, 8, 3), []),
        (keras.layers.DepthwiseConv1D(3), (8, 3), []),
        (keras.layers.Conv1D(4, 3), (8, 3), ["kernel"]),
        (keras.layers.Conv3D(4, 3), (8, 8, 8, 3), ["kernel"]),
        (keras.layers.Conv2DTranspose(4, 3), (8, 8, 3), ["kernel"]),
        (keras.layers.EinsumDense("bc,cd->bd", 4), (3,), ["kernel"]),
        (keras.layers.BatchNormalization(), (3,), []),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_kernels_of_any_layer(layer, shape, decayed):
    """The pointwise half of a separable convolution was not decayed."""
    inner = keras.Sequential([keras.Input(shape), layer])
    model = keras.Sequential([keras.Input(shape), inner])  # nested ones too
    found = [v.name for v in decayed_weights(model, "kernels")]
    assert found == decayed
