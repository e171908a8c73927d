import zipfile

import keras
import numpy as np
import pytest

import keras_mobilenets as km
from keras_mobilenets.training.averaging import get_averages
from keras_mobilenets.training.optimizer import SGD

X = np.random.default_rng(0).normal(0, 1, (32, 4)).astype("float32")
Y = X[:, :1] * 2 - X[:, 1:2]
CLASSES = (Y[:, 0] > 0).astype("int64")


def make(decay: float | None, batch_norm: bool = True) -> keras.Model:
    """A net with weights, biases and batch-norm statistics, and averages of them."""
    layers = [keras.Input((4,)), keras.layers.Dense(3, kernel_initializer="ones")]
    if batch_norm:
        layers.append(keras.layers.BatchNormalization(momentum=0.5))
    layers.append(keras.layers.Dense(1, kernel_initializer="ones"))
    model = keras.Sequential(layers)
    recipe = km.recipes["quick"].replace(ema_decay=decay, weight_decay=0.0).as_dict()
    model.compile(SGD(0.05, recipe=recipe), loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


def classifier(decay: float | None = 0.9, **settings) -> keras.Model:
    """The same for classes, by `compile`."""
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3)(inputs)
    x = keras.layers.BatchNormalization()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))
    settings = {"steps_per_epoch": 9, "batch_norm_momentum": 0.5, **settings}
    return km.compile(model, "quick", ema_decay=decay, epochs=99, **settings)


def assert_same(ours, theirs) -> None:
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(other))


def test_equal_to_numpy_statistics_included():
    model = make(0.25)
    expected = [w.astype("float64") for w in model.get_weights()]
    for step in range(12):
        model.train_on_batch(X, Y)
        decay = min(0.25, (1 + step) / (10 + step))  # slim's num_updates
        expected = [
            e * decay + w * (1 - decay)
            for e, w in zip(expected, model.get_weights(), strict=True)
        ]
    averages = get_averages(model)
    assert len(averages) == len(model.weights)
    for average, value in zip(averages, expected, strict=True):
        np.testing.assert_allclose(average, value, rtol=1e-5, atol=1e-6)


def test_fit_averages_too_and_training_does_not_change():
    plain, averaged = make(None), make(0.9)
    for model in (plain, averaged):
        model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for one, other in zip(plain.get_weights(), averaged.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    assert get_averages(plain) is None
    assert not np.array_equal(get_averages(averaged)[0], averaged.get_weights()[0])


def test_swapped_in_and_out_again():
    model = make(0.9)
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    own = model.get_weights()
    with km.averaged_weights(model):
        assert_same(model.get_weights(), get_averages(model))
        with km.averaged_weights(model):
            assert_same(model.get_weights(), get_averages(model))
        assert_same(model.get_weights(), get_averages(model))
    assert_same(model.get_weights(), own)
    with pytest.raises(KeyError), km.averaged_weights(model):
        raise KeyError
    assert_same(model.get_weights(), own)
    model.fit(X, Y, batch_size=8, verbose=0)


def test_before_the_first_step_there_is_nothing_to_average():
    model = classifier()
    own = [w + 1 for w in model.get_weights()]
    model.set_weights(own)  # after compile: the averages began at other weights
    with km.averaged_weights(model):
        assert_same(model.get_weights(), own)


def test_a_model_without_averages_and_one_without_optimizer():
    model = classifier(decay=None)
    model.train_on_batch(X, CLASSES)
    own = model.get_weights()
    with km.averaged_weights(model):
        assert_same(model.get_weights(), own)
    uncompiled = km.build("mobilenet_v1", alpha=0.25, resolution=32, shallow=True)
    with (
        pytest.raises(km.UsageError, match="must be compiled"),
        km.averaged_weights(uncompiled),
    ):
        pass


def test_averages_load_in_plain_keras(tmp_path):
    """A file of a compiled model needed this package's optimizer."""
    model = classifier(weight_decay=1e-3)
    model.fit(X, CLASSES, epochs=2, verbose=0)
    with km.averaged_weights(model):
        model.save(tmp_path / "digits.keras")
        expected = float(model.get_weights()[0].sum())
    model.save(tmp_path / "run.keras")
    saved = tmp_path / "digits.keras"
    assert saved.stat().st_size < (tmp_path / "run.keras").stat().st_size
    for file, ours in ((saved, False), (tmp_path / "run.keras", True)):
        with zipfile.ZipFile(file) as archive:
            assert (b"keras_mobilenets" in archive.read("config.json")) == ours
    loaded = keras.saving.load_model(saved)
    assert not loaded.compiled
    assert not loaded.losses
    assert float(loaded.get_weights()[0].sum()) == pytest.approx(expected)
    model.fit(X, CLASSES, epochs=1, verbose=0)  # it has its optimizer again


@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer": "sgd"}, {"weight_decay_scope": "all"}],
    ids=["rmsprop", "sgd", "decay of all"],
)
def test_a_loaded_model_goes_on_with_its_averages(tmp_path, settings):
    """They were gone, or began anew, after Keras had loaded a compiled model."""
    model = classifier(**settings)
    model.fit(X, CLASSES, batch_size=8, epochs=3, shuffle=False, verbose=0)
    model.save(tmp_path / "run.keras")
    loaded = keras.saving.load_model(tmp_path / "run.keras")
    assert_same(get_averages(loaded), get_averages(model))
    assert_same([loaded.losses], [model.losses])
    with km.averaged_weights(model), km.averaged_weights(loaded):
        assert_same(loaded.get_weights(), model.get_weights())
    for each in (model, loaded):
        each.fit(X, CLASSES, batch_size=8, epochs=2, shuffle=False, verbose=0)
    assert_same(loaded.get_weights(), model.get_weights())
    assert_same(get_averages(loaded), get_averages(model))


def test_averages_of_a_run_that_keras_backs_up(tmp_path):
    """BackupAndRestore brought back the weights, and averages of the initial ones."""

    def fit(model, epochs, *callbacks):
        arguments = {"batch_size": 8, "shuffle": False, "verbose": 0}
        model.fit(X, CLASSES, epochs=epochs, callbacks=list(callbacks), **arguments)

    class Killed(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                raise KeyboardInterrupt

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    keras.utils.set_random_seed(0)
    whole = classifier()
    keras.utils.set_random_seed(0)
    killed = classifier()
    fit(whole, 6)
    with pytest.raises(KeyboardInterrupt):
        fit(killed, 6, backup(), Killed())
    resumed = classifier()
    fit(resumed, 6, backup())
    assert_same(resumed.get_weights(), whole.get_weights())
    assert_same(get_averages(resumed), get_averages(whole))


def test_an_optimizer_of_a_recipe_needs_its_model():
    recipe = km.recipes["quick"].as_dict()
    with pytest.raises(km.UsageError, match="only in a compiled Keras model"):
        km.RMSprop(0.1, recipe=recipe).build([keras.Variable([1.0])])


def test_two_replicas_average_like_one(two_replicas):
    def averages():
        model = make(0.5, batch_norm=False)
        model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        return get_averages(model)

    expected = averages()
    with two_replicas.scope():
        actual = averages()
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
