"""Fine-tuning by `train`: features that are kept, phases, and what is refused."""

import csv
import json
import re

import keras
import numpy as np
import pytest

import keras_mobilenets as km
from keras_mobilenets.__main__ import main
from keras_mobilenets.settings import make_settings
from keras_mobilenets.training import features
from tests.training.noise import RUN, make_arrays, make_folder, train_until

pytestmark = pytest.mark.usefixtures("few_blocks")

NETWORK = {k: RUN[k] for k in ("name", "alpha", "resolution", "shallow")}
# Statistics move slowly, rates are high: so that what is wrong shows after few steps.
TUNED = {
    **NETWORK,
    "recipe": "finetune",
    "batch_size": 16,
    "learning_rate": 0.05,
    "epochs": 3,
    "head_epochs": 2,
    "early_stopping_patience": None,
    "verbose": False,
}


@pytest.fixture(scope="module")
def images():
    return make_arrays(30)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of a network that has seen something else, and other classes."""
    keras.utils.set_random_seed(7)
    model = km.build(classes=4, **NETWORK)
    random = np.random.default_rng(0)
    for v in model.weights:
        if v.name in ("gamma", "moving_variance"):
            v.assign(random.uniform(0.5, 1.5, v.shape))
        elif v.name in ("beta", "moving_mean"):
            v.assign(random.normal(0, 0.1, v.shape))
    path = tmp_path_factory.mktemp("weights") / "donor.keras"
    model.save(path)
    return path


@pytest.fixture
def train(images, weights, tmp_path):
    """`stop_after` sends this process a SIGTERM after so many steps."""

    def train(workdir="run", stop_after=None, **settings):
        given = {"data": images, "weights": weights, **TUNED, **settings}
        return train_until(stop_after, workdir=tmp_path / workdir, **given)

    return train


def history(run):
    with open(run.workdir / "history.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def named(model):
    return {v.path: np.array(v) for v in model.weights}


@pytest.mark.parametrize(
    ("freeze", "ema_decay"),
    [
        (None, 0.9),
        pytest.param("body", 0.9, marks=pytest.mark.slow),
        pytest.param(None, None, marks=pytest.mark.slow),
    ],
)
def test_the_same_run_as_through_the_network(
    freeze, ema_decay, train, weights, images, capsys
):
    settings = {"freeze": freeze, "ema_decay": ema_decay, "verbose": True}
    kept = train("kept", **settings)
    said = capsys.readouterr().out
    assert re.search(r"the features of \d+ images were computed once", said)
    plain = train("plain", **settings, memory_budget=1000)
    said = capsys.readouterr().out
    assert "the frozen layers run in every epoch: features take" in said
    for one, other in zip(history(kept), history(plain), strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    assert kept.report["pretrained"]["new"]  # the classifier
    donor = named(keras.saving.load_model(weights, compile=False))
    for (name, one), other in zip(
        named(kept.model).items(), named(plain.model).values(), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5, err_msg=name)
        frozen = freeze == "body" and "logits" not in name
        frozen |= "moving" in name  # batch_norm="frozen"
        assert np.array_equal(one, donor[name]) == frozen, name
    saved = keras.saving.load_model(kept.workdir / "model.keras", compile=False)
    assert saved.count_params() == kept.model.count_params()
    assert all(layer.trainable for layer in saved.layers)
    result = km.evaluate(kept.workdir, data=images, verbose=False)
    assert result["accuracy"] == pytest.approx(kept.report["test"]["accuracy"])
    last = history(kept)[-1]
    assert last["val_loss"] == pytest.approx(kept.report["validation"]["loss"], 1e-4)


def test_class_weights_count_on_features_too(train, weights, capsys):
    """Where the body is frozen to the end."""
    settings = {"freeze": "body", "verbose": True, "epochs": 2, "head_epochs": 0}
    weighted = {**settings, "class_weight": {"dark": 5, "light": 0.1}}
    kept = train("kept", **weighted)
    assert "were computed once" in capsys.readouterr().out
    plain = train("plain", **weighted, memory_budget=1)
    assert "the frozen layers run in every epoch" in capsys.readouterr().out
    even = train("even", **settings)
    one, other, without = (
        run.model.get_layer("logits").get_weights()[0] for run in (kept, plain, even)
    )
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert np.abs(one - without).max() > 1e-2
    donor = named(keras.saving.load_model(weights, compile=False))
    for name, value in named(kept.model).items():
        assert np.array_equal(value, donor[name]) == ("logits" not in name), name


@pytest.mark.parametrize("memory_budget", [2**28, 1000], ids=["kept", "through"])
@pytest.mark.parametrize(
    "step",
    [
        pytest.param(2, marks=pytest.mark.slow),
        10,
        pytest.param(12, marks=pytest.mark.slow),
    ],
)
def test_resumed_in_the_heads_epochs_at_the_switch_and_after(
    step, memory_budget, train
):
    settings = {"memory_budget": memory_budget, "dropout": 0.3}
    whole = train("whole", **settings)
    assert whole.report["steps_per_epoch"] == 5
    with pytest.raises(km.TrainingInterrupted, match=f"after step {step};"):
        train(stop_after=step, **settings)
    resumed = train(**settings)
    assert resumed.report == whole.report
    assert history(resumed) == history(whole)
    for name, value in named(whole.model).items():
        np.testing.assert_array_equal(named(resumed.model)[name], value, err_msg=name)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"flip": True, "color": "fast"}, "distorts images (flip, color)"),
        ({"crop_area": (0.5, 1)}, "distorts images (crop_area)"),
    ],
)
def test_distorted_images_go_through_the_network(settings, reason, images):
    asked = {**TUNED, "weights": "unread", "data": images, **settings}
    asked = make_settings({k: v for k, v in asked.items() if k != "verbose"})
    splits = km.load_data(images, resolution=32, recipe=asked.recipe)
    kept, note = features.keep_features(km.build(classes=3, **NETWORK), asked, splits)
    assert kept is None
    assert note == f"the frozen layers run in every epoch: the recipe {reason}"


def test_the_cut_is_where_dropout_begins():
    keras.utils.set_random_seed(0)
    model = km.build(classes=3, dropout=0.5, **NETWORK)
    body, classify = features.cut(model)
    images = np.random.default_rng(0).normal(0, 1, (4, 32, 32, 3)).astype("float32")
    expected = model(images, training=False)
    np.testing.assert_allclose(classify(body(images), training=False), expected, 1e-6)
    assert body.output_shape == (None, model.get_layer("logits").kernel.shape[0])
    assert not any(isinstance(x, keras.layers.Dropout) for x in body.layers)
    dropped = [np.array(classify(body(images), training=True)) for _ in range(2)]
    assert not np.allclose(*dropped)


def test_patience_waits_for_the_body(train):
    """A rate of nothing: no epoch is better than the first."""
    settings = {"learning_rate": 1e-12, "early_stopping_patience": 1, "epochs": 9}
    run = train("head", head_epochs=3, **settings)
    assert run.report["epochs"] == 4
    assert train("none", head_epochs=0, **settings).report["epochs"] == 2


def test_recalibrated_at_the_end(train, images):
    settings = {"batch_norm_momentum": 0.5, "freeze": "block_1_depthwise"}
    settings |= {"epochs": 2, "head_epochs": 1}
    trained = train("trained", batch_norm="train", **settings)
    run = train("recalibrated", batch_norm="recalibrate", **settings)
    recipe = km.recipes["finetune"].replace(batch_size=16)
    splits = km.load_data(images, resolution=32, recipe=recipe)
    splits.set_position(2, 0)
    frozen = ("stem_bn", "block_1_depthwise_bn")
    for name in frozen:
        trained.model.get_layer(name).trainable = False
    before = named(trained.model)
    km.recalibrate(trained.model, splits.train)
    for name, value in named(run.model).items():
        moving = "moving" in name and not name.startswith(frozen)
        assert np.array_equal(value, before[name]) == (not moving), name
        np.testing.assert_allclose(value, named(trained.model)[name], 1e-5, 1e-5)


def test_on_two_replicas_as_on_one(train, two_replicas):
    settings = {"epochs": 2, "head_epochs": 1, "dropout": 0.0}
    alone = train("alone", **settings)
    both = train("both", **settings, batch_size=8, strategy=two_replicas)
    for name, value in named(alone.model).items():
        np.testing.assert_allclose(named(both.model)[name], value, 1e-4, 1e-5)


REFUSED = {
    "no weights": (
        {"weights": None},
        "weights must be given for head_epochs=2, batch_norm='frozen'.*got None.*"
        "or head_epochs=0, batch_norm='train'",
    ),
    "layer": ({"freeze": "blok_1_project"}, "did you mean 'block_1_project'"),
    "classifier": ({"freeze": "logits"}, "before its classifier.*got 'logits'"),
    "epochs": ({"epochs": 1}, "head_epochs must be at most the 1 epochs.*got 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_written(case, train, tmp_path):
    settings, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as caught:
        train(**settings)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_command_line(weights, tmp_path, capsys):
    folder = make_folder(tmp_path / "noise", images=30)
    words = ["train", "mobilenet_v1", "--alpha", "0.25", "--resolution", "32"]
    words += ["--shallow", "--data", str(folder), "--workdir", str(tmp_path / "run")]
    words += ["--recipe", "finetune", "--batch-size", "16", "--epochs", "2"]
    words += ["--head-epochs", "1", "--freeze", "block_1_depthwise"]
    words += ["--set", "exif_orientation=False"]
    assert main(words) == 2
    assert "error: weights must be given" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*words, "--weights", str(weights), "--body-learning-rate", "1"]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["recipe"]["freeze"] == "block_1_depthwise"
    assert report["recipe"]["body_learning_rate"] == 1.0
    assert report["initial_weights"] == str(weights)
    assert main([*words[:2], "--resume", "--workdir", str(tmp_path / "run")]) == 0
