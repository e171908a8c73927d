import keras
import numpy as np
import pytest

import keras_mobilenets as km
from keras_mobilenets.training.averaging import average_model, get_average

X = np.random.default_rng(0).normal(0, 1, (32, 4)).astype("float32")
Y = X[:, :1] * 2 - X[:, 1:2]


def make() -> keras.Model:
    """A net with weights, biases and batch-norm statistics."""
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, kernel_initializer="ones")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.5)(x)
    model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones")(x))
    model.compile(keras.optimizers.SGD(0.05), loss="mse")
    return model


def test_equal_to_numpy_statistics_included():
    model = make()
    average_model(model, 0.25)
    expected = [w.astype("float64") for w in model.get_weights()]
    for step in range(12):
        model.train_on_batch(X, Y)
        decay = min(0.25, (1 + step) / (10 + step))  # slim's num_updates
        expected = [
            e * decay + w * (1 - decay)
            for e, w in zip(expected, model.get_weights(), strict=True)
        ]
    averages = get_average(model).averages
    assert len(averages) == len(model.weights)
    for average, value in zip(averages, expected, strict=True):
        np.testing.assert_allclose(np.array(average), value, rtol=1e-5, atol=1e-6)


def test_fit_averages_too_and_training_does_not_change():
    plain, averaged = make(), make()
    average_model(averaged, 0.9)
    for model in (plain, averaged):
        model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for one, other in zip(plain.get_weights(), averaged.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    average = np.array(get_average(averaged).averages[0])
    assert not np.array_equal(average, averaged.get_weights()[0])


def test_swapped_in_and_out_again(tmp_path):
    model = make()
    average_model(model, 0.9)
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    own = model.get_weights()
    with km.averaged_weights(model):
        inside = model.get_weights()
        model.save(tmp_path / "averaged.keras")
    for average, value in zip(get_average(model).averages, inside, strict=True):
        np.testing.assert_array_equal(np.array(average), value)
    for now, then in zip(model.get_weights(), own, strict=True):
        np.testing.assert_array_equal(now, then)
    loaded = keras.saving.load_model(tmp_path / "averaged.keras")
    np.testing.assert_array_equal(loaded.get_weights()[0], inside[0])


def test_own_weights_return_after_an_error():
    model = make()
    average_model(model, 0.9)
    model.train_on_batch(X, Y)
    own = model.get_weights()
    with pytest.raises(KeyError), km.averaged_weights(model):
        raise KeyError
    np.testing.assert_array_equal(model.get_weights()[0], own[0])


def test_none_stops_averaging():
    model = make()
    average_model(model, 0.9)
    average_model(model, None)
    assert get_average(model) is None
    model.train_on_batch(X, Y)
    before = model.get_weights()
    with km.averaged_weights(model):
        np.testing.assert_array_equal(model.get_weights()[0], before[0])


def test_two_replicas_average_like_one(two_replicas):
    def averages(model):
        average_model(model, 0.5)
        model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        return [np.array(a) for a in get_average(model).averages]

    def no_batch_norm():
        dense = keras.layers.Dense(1, kernel_initializer="ones")
        model = keras.Sequential([keras.Input((4,)), dense])
        model.compile(keras.optimizers.SGD(0.05), loss="mse")
        return model

    expected = averages(no_batch_norm())
    with two_replicas.scope():
        model = no_batch_norm()
        actual = averages(model)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
