import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mobilenets as km
from keras_mobilenets.training.losses import SmoothedCrossentropy, regularize

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


@pytest.mark.parametrize(
    ("name", "kernels"), [("mobilenet_v1", 15), ("mobilenet_v2", 36)]
)
def test_kernels_are_regularized_and_nothing_else(name, kernels):
    model = km.build(name, alpha=0.25, resolution=32, classes=3)
    regularize(model, 4e-5, "kernels")
    chosen = [v.path for v in model.trainable_variables if v.regularizer]
    assert len(chosen) == kernels
    assert not [path for path in chosen if "depthwise" in path or "bias" in path]
    expected = sum(
        0.5 * 4e-5 * float((np.array(v) ** 2).sum())
        for v in model.trainable_variables
        if v.path in chosen
    )
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)
    regularize(model, 4e-5, "all")
    assert all(v.regularizer for v in model.trainable_variables)
    regularize(model, 0.0, "kernels")
    assert not model.losses


def test_a_saved_model_keeps_its_weight_decay(tmp_path):
    model = km.build("mobilenet_v1", alpha=0.25, resolution=32, classes=3)
    regularize(model, 4e-5, "all")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert float(sum(loaded.losses)) == pytest.approx(float(sum(model.losses)))
