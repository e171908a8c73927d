import keras
import numpy as np
import pytest

import keras_mobilenets as km
from keras_mobilenets.training.averaging import get_averages

RANDOM = np.random.default_rng(3)
BATCHES = [
    RANDOM.normal(k, k + 1, (size, 5, 5, 3)).astype("float32")
    for k, size in enumerate((8, 8, 8, 3))  # the last one is short
]
EVERYTHING = np.concatenate(BATCHES)


def make() -> keras.Model:
    inputs = keras.Input((5, 5, 3))
    x = keras.layers.BatchNormalization(momentum=0.9, name="bn")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.9)(x)
    x = keras.layers.BatchNormalization(scale=False, center=False)(x)
    return keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))


def statistics(model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    layer = model.get_layer("bn")
    return np.array(layer.moving_mean), np.array(layer.moving_variance)


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "not compiled"])
def test_the_statistics_are_those_of_all_images(compiled):
    """A short last batch counted like a full one."""
    model = make()
    if compiled:
        km.compile(model, "quick", steps_per_epoch=99, ema_decay=None)
    before = model.trainable_variables[0].numpy()
    km.recalibrate(model, [(batch, np.zeros(len(batch))) for batch in BATCHES])
    mean, variance = statistics(model)
    np.testing.assert_allclose(mean, EVERYTHING.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, EVERYTHING.var((0, 1, 2), ddof=1), rtol=1e-5)
    np.testing.assert_array_equal(model.trainable_variables[0].numpy(), before)
    # Behind dropout, which is off: what the layer sees in inference.
    behind = model.layers[4]
    seen = keras.Model(model.input, model.layers[3].output)(EVERYTHING)
    np.testing.assert_allclose(behind.moving_mean, np.mean(seen, 0), atol=1e-5)


def test_one_image_among_zeros():
    """63 zeros, then one 64: it was the mean of 0 and 64."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization()])
    km.recalibrate(model, [np.zeros((63, 1)), np.full((1, 1), 64.0)])
    assert float(model.layers[0].moving_mean[0]) == pytest.approx(1)


def test_batches_of_images_labels_and_weights():
    model = make()
    triples = [(b, np.zeros(len(b)), np.ones(len(b))) for b in BATCHES]
    km.recalibrate(model, triples, batches=1)
    np.testing.assert_allclose(
        statistics(model)[0], BATCHES[0].mean((0, 1, 2)), rtol=1e-4, atol=1e-5
    )


def test_a_frozen_layer_keeps_its_statistics():
    model = make()
    model.get_layer("bn").trainable = False
    km.recalibrate(model, BATCHES)
    np.testing.assert_array_equal(statistics(model)[0], np.zeros(3))


def test_averaged_weights_keep_what_was_recalibrated():
    """They brought the old statistics back, and the accuracy with them."""
    labels = np.arange(64) % 2
    x = RANDOM.normal(0, 1, (64, 5, 5, 3)).astype("float32") + 40
    x[..., 0] += 2 * labels[:, None, None]
    model = make()
    km.compile(
        model, "quick", steps_per_epoch=10, epochs=999, batch_norm_momentum=0.999,
        ema_decay=0.5, dropout=0.0,
    )  # fmt: skip
    model.fit(x, labels, batch_size=32, epochs=40, verbose=0)
    km.recalibrate(model, [x])
    assert model.evaluate(x, labels, verbose=0)[1] == 1
    with km.averaged_weights(model):
        assert model.evaluate(x, labels, verbose=0)[1] == 1
        inside = keras.Model(model.input, model.layers[3].output)(x)
        # Those of the second layer depend on the weights: here the averaged ones.
        np.testing.assert_allclose(
            model.layers[4].moving_variance, np.var(inside, 0, ddof=1), rtol=1e-3
        )
    place = [v.path for v in model.weights].index("bn/moving_mean")
    np.testing.assert_allclose(get_averages(model)[place], x.mean((0, 1, 2)), rtol=1e-5)


def test_nothing_changes_where_it_fails():
    model = make()
    km.recalibrate(model, BATCHES)
    before = model.get_weights()
    with pytest.raises(km.UsageError, match="dataset must yield images of shape"):
        km.recalibrate(model, [BATCHES[1], np.zeros((2, 5, 5, 7))])
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_it_needs_data_and_a_model():
    with pytest.raises(km.UsageError, match="dataset must yield at least one batch"):
        km.recalibrate(make(), [])
    with pytest.raises(km.UsageError, match="batches must be .*; got 0"):
        km.recalibrate(make(), BATCHES, batches=0)
    with pytest.raises(km.UsageError, match="must be a keras.Model; got 'x'"):
        km.recalibrate("x", BATCHES)
    with pytest.raises(km.UsageError, match="dataset must yield batches"):
        km.recalibrate(make(), np.float32(3))
    for wrong in ([1, 2], [()], {"a": 1}, np.zeros((3, 4)), [BATCHES[1][..., 0]]):
        with pytest.raises(km.UsageError, match="dataset must yield images of shape"):
            km.recalibrate(make(), wrong)
