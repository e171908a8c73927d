"""`HyperMobileNet` in KerasTuner's own tuners, on digits, with networks of seconds."""

import keras
import keras_tuner
import numpy as np
import pytest
from keras_tuner.errors import FatalValueError

import keras_mobilenets as km
from keras_mobilenets.errors import TrainingDiverged
from keras_mobilenets.tuning.hypermodel import HyperMobileNet

pytestmark = pytest.mark.usefixtures("few_blocks")

TINY = {
    "names": "mobilenet_v1",
    "alphas": (0.1, 0.25),
    "resolutions": (32, 40),
    "shallow": True,
    "epochs": 1,
    "warmup_epochs": 0,
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def make(data_dir):
    return lambda **settings: HyperMobileNet(
        "digits", data_dir=data_dir, **{**TINY, **settings}
    )


def point(hypermodel, **values):
    """Hyperparameters of one trial."""
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    hp.values.update(values)
    return hp


def test_hyperparameters_are_declared_without_building(make):
    hp = point(make(learning_rate=(0.01, 0.1), dropout=(0.0, 0.5), weight_decay=1e-4))
    kinds = {p.name: type(p).__name__ for p in hp.space}
    assert kinds == {
        "name": "Choice",
        "alpha": "Choice",
        "resolution": "Choice",
        "learning_rate": "Float",
        "dropout": "Float",
    }
    assert [p.values for p in hp.space[:3]] == [
        ["mobilenet_v1"],
        [0.1, 0.25],
        [32, 40],
    ]


def test_build_follows_the_hyperparameters(make):
    hypermodel = make(learning_rate=(0.01, 0.1), dropout=(0.0, 0.5), weight_decay=1e-4)
    hp = point(hypermodel, alpha=0.25, resolution=40, learning_rate=0.05, dropout=0.3)
    model = hypermodel.build(hp)
    assert model.input_shape == (None, 40, 40, 3)
    cost = km.cost("mobilenet_v1", alpha=0.25, resolution=40, classes=10, shallow=True)
    assert model.count_params() == cost.params
    recipe = hypermodel.settings(hp).recipe
    assert (recipe.learning_rate, recipe.dropout) == (0.05, 0.3)
    assert recipe.weight_decay == 1e-4
    assert float(model.optimizer.learning_rate) == pytest.approx(0.05)
    assert [x.rate for x in model.layers if isinstance(x, keras.layers.Dropout)] == [
        0.3
    ]


def test_the_network_and_its_data_have_the_same_resolution(make):
    hypermodel = make()
    for pixels in (40, 32):
        hp = point(hypermodel, resolution=pixels)
        model, splits = hypermodel.build(hp), hypermodel.load(hypermodel.settings(hp))
        assert splits.train.element_spec[0].shape[1:] == model.input_shape[1:]


def test_networks_of_two_sides_and_one_channel(make, tmp_path):
    hypermodel = make(alphas=0.1, resolutions=((32, 48), 32), channels=1)
    cost = km.cost(
        "mobilenet_v1",
        alpha=0.1,
        resolution=(32, 48),
        channels=1,
        shallow=True,
    )
    assert hypermodel.space.feasible[0].macs == cost.macs
    tuner = keras_tuner.GridSearch(
        hypermodel, objective="val_accuracy", directory=tmp_path
    )
    tuner.search(epochs=1, verbose=0)
    trials = tuner.oracle.trials.values()
    assert [trial.status for trial in trials] == ["COMPLETED"] * 2
    shapes = {
        trial.hyperparameters.values["resolution"]: hypermodel.build(
            trial.hyperparameters
        ).input_shape
        for trial in trials
    }
    assert shapes == {"32x48": (None, 32, 48, 1), "32x32": (None, 32, 32, 1)}


def test_by_kerastuner_as_people_know_it(make, tmp_path):
    hypermodel = make()
    tuner = keras_tuner.RandomSearch(
        hypermodel, objective="val_accuracy", max_trials=1, seed=1, directory=tmp_path
    )
    tuner.search(epochs=2, verbose=0)
    (best,) = tuner.oracle.get_best_trials()
    assert best.status == "COMPLETED"
    # What the tuner kept is what it compared: the averaged weights of the best epoch.
    (model,) = tuner.get_best_models()
    hp = best.hyperparameters
    splits = hypermodel.load(hypermodel.settings(hp))
    accuracy = model.evaluate(splits.validation, verbose=0, return_dict=True)
    assert accuracy["accuracy"] == pytest.approx(best.score, abs=1e-6)


def test_validation_is_by_the_averages_and_training_is_not(make):
    hypermodel = make(ema_decay=0.9, epochs=2)
    hp = point(hypermodel)
    seen = {}

    class Look(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            seen["validation"] = self.model.get_weights()

        def on_train_begin(self, logs=None):
            seen["begin"] = self.model.get_weights()

    model = hypermodel.build(hp)
    hypermodel.fit(hp, model, callbacks=[Look()], verbose=0)
    with km.averaged_weights(model):
        averages = model.get_weights()
    for one, other in zip(seen["validation"], averages, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(model.get_weights()[0], averages[0])

    # The same steps as without any look at the averages.
    plain = hypermodel.build(hp)
    splits = hypermodel.load(hypermodel.settings(hp))
    for epoch in range(2):
        splits.set_epoch(epoch)
        plain.fit(splits.train, epochs=epoch + 1, initial_epoch=epoch, verbose=0)
    for one, other in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_under_a_strategy_of_kerastuner(make, tmp_path, two_replicas):
    tuner = keras_tuner.GridSearch(
        make(alphas=0.1, resolutions=32),
        objective="val_accuracy",
        distribution_strategy=two_replicas,
        directory=tmp_path,
    )
    tuner.search(verbose=0)
    (trial,) = tuner.oracle.get_best_trials()
    assert trial.status == "COMPLETED"
    assert trial.score * 180 == pytest.approx(round(trial.score * 180), abs=1e-3)


def test_seed_settles_a_trial(make):
    def first_batch_and_kernel(seed):
        hypermodel = make(seed=seed)
        hp = point(hypermodel)
        model = hypermodel.build(hp)
        splits = hypermodel.load(hypermodel.settings(hp))
        images, _ = next(iter(splits.train))
        return images.numpy(), model.get_weights()[0]

    for one, same, other in zip(*map(first_batch_and_kernel, (0, 0, 1)), strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)


def test_diverging_trial_stops(make):
    hypermodel = make(learning_rate=1e30, weight_decay=4e-5, epochs=3)
    hp = point(hypermodel)
    with pytest.raises(TrainingDiverged, match=r"of epoch 1 \(learning rate .*e\+"):
        hypermodel.fit(hp, hypermodel.build(hp), verbose=0)


def test_data_is_not_for_search(make):
    hypermodel = make()
    hp = point(hypermodel)
    with pytest.raises(FatalValueError, match="takes no data"):
        hypermodel.fit(hp, hypermodel.build(hp), np.zeros([1, 32, 32, 3]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.5}, "no argument 'alpha'; did you mean 'alphas'"),
        ({"max_macs": 1e6}, "no argument 'max_macs'"),
        ({"alphas": (0.5, -1)}, "alpha must be a finite number above 0"),
        ({"names": "mobilenet_v3"}, "name must be one of"),
        ({"learning_rate": (1, 0.1)}, "learning_rate"),
        ({"rhos": (0.5,)}, "rhos or resolutions, not both"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"recipe": "slim"}, "recipe must be one of"),
        ({"weights": "/nowhere.keras"}, "got '/nowhere.keras': not a file"),
        ({"oracle": "grid"}, "no argument 'oracle'"),
        ({"expansion": 4}, "variation of mobilenet_v2"),
    ],
)
def test_mistakes(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)
