import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mobilenets as km
from keras_mobilenets.training.averaging import get_averages

pytestmark = pytest.mark.usefixtures("few_blocks")

SMALL = {"alpha": 0.25, "resolution": 32, "classes": 4, "shallow": True}
QUIET = {"batch_norm_momentum": 0.5}  # settles within the few steps of a test


@pytest.fixture(autouse=True)
def seed() -> None:
    """Rounding is compared, whose effects depend on the initial weights."""
    keras.utils.set_random_seed(0)


def small(**arguments) -> keras.Model:
    return km.build("mobilenet_v1", **{**SMALL, **arguments})


def batches(images: int = 32, size: int = 8) -> tf.data.Dataset:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, images)
    x = rng.normal(0, 0.3, (images, 32, 32, 3)) + labels[:, None, None, None] / 4
    return tf.data.Dataset.from_tensor_slices((x.astype("float32"), labels)).batch(size)


def test_fit_traces_once():
    model = small()
    km.compile(model, "quick", steps_per_epoch=4, **QUIET)
    traces = []
    step = model.train_step
    model.train_step = lambda data: (traces.append(1), step(data))[1]
    model.fit(batches(), epochs=2, verbose=0)
    assert len(traces) == 1


def test_fit_learns_evaluates_and_resumes_from_its_file(tmp_path):
    model = small()
    settings = {"epochs": 40, "decay_epochs": 40, "ema_decay": 0.8, **QUIET}
    km.compile(model, "quick", steps_per_epoch=4, **settings)
    history = model.fit(batches(), epochs=40, verbose=0).history
    assert history["accuracy"][-1] > 0.9
    assert history["loss"][-1] < history["loss"][0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    ours = model.evaluate(batches(), verbose=0)
    np.testing.assert_allclose(loaded.evaluate(batches(), verbose=0), ours, rtol=1e-2)
    assert isinstance(loaded.optimizer, km.RMSprop)


def test_the_recipe_reaches_everything():
    model = small(dropout=None)
    km.compile(model, "slim_v2", steps_per_epoch=100, dropout=0.3, weight_decay=1e-3)
    optimizer = model.optimizer
    assert (optimizer.rho, optimizer.momentum, optimizer.epsilon) == (0.9, 0.9, 1.0)
    assert optimizer.initial_accumulator == 1.0
    assert model.get_layer("dropout").rate == 0.3
    assert model.get_layer("stem_bn").momentum == 0.997
    assert model.get_layer("stem").kernel.regularizer.l2 == pytest.approx(5e-4)
    assert model.loss.label_smoothing == 0.1
    assert not model.loss.from_logits
    km.compile(model, "torchvision_v2", steps_per_epoch=100)
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert model.get_layer("stem_bn").gamma.regularizer.l2 == pytest.approx(2e-5)


@pytest.mark.parametrize("recipe", sorted(km.recipes))
def test_every_recipe_takes_a_step(recipe):
    model = small()
    all_moves = {"head_epochs": 0, "batch_norm": "train"}  # not so in finetune
    km.compile(model, recipe, steps_per_epoch=1000, epochs=100, **all_moves)
    before = model.get_weights()
    x, y = next(batches().as_numpy_iterator())
    assert np.isfinite(model.train_on_batch(x, y)[0])
    changed = [
        not np.array_equal(now, then)
        for now, then in zip(model.get_weights(), before, strict=True)
    ]
    # A warm-up starts at rate 0: then only the moving statistics move.
    statistics = len(model.non_trainable_weights)
    expected = len(changed) if not km.recipes[recipe].warmup_epochs else statistics
    assert sum(changed) >= expected - 2


def test_a_foreign_model():
    model = keras.applications.MobileNet(
        input_shape=(32, 32, 3), alpha=0.25, weights=None, classes=4
    )
    km.compile(model, "quick", steps_per_epoch=4, **QUIET)
    x, y = next(batches().as_numpy_iterator())
    loss = model.train_on_batch(x, y)[0]
    assert loss == pytest.approx(np.log(4), abs=0.8)
    assert not model.loss.from_logits


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = small()
        km.compile(model, "quick", steps_per_epoch=4, epochs=8, **QUIET)
        losses = model.fit(batches(), epochs=8, verbose=0).history["loss"]
    finally:
        keras.config.set_dtype_policy("float32")
    assert losses[-1] < losses[0]


def test_two_replicas_take_the_steps_of_one(two_replicas):
    settings = {
        "steps_per_epoch": 4,
        "learning_rate": 1e-5,
        "scale_learning_rate": False,
        "synchronize_batch_norm": True,
        "ema_decay": 0.5,
        **QUIET,
    }
    one = small(dropout=0.0)
    initial = one.get_weights()
    km.compile(one, "slim_v2", **settings)
    with two_replicas.scope():
        two = small(dropout=0.0)
        two.set_weights(initial)
        km.compile(two, "slim_v2", **settings)
    histories = [m.fit(batches(), epochs=1, verbose=0).history for m in (one, two)]
    assert histories[0]["loss"] == pytest.approx(histories[1]["loss"], rel=1e-4)
    for ours, theirs in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_replicas_with_statistics_of_their_own(two_replicas):
    """Halves of a batch have each their own; gradients and moving ones are averaged."""
    settings = {
        "steps_per_epoch": 4,
        "learning_rate": 1e-3,
        "scale_learning_rate": False,
        "synchronize_batch_norm": False,
        "ema_decay": 0.5,
        **QUIET,
    }
    by_hand = small(dropout=0.0)
    initial = by_hand.get_weights()
    km.compile(by_hand, "quick", **settings)
    with two_replicas.scope():
        model = small(dropout=0.0)
        model.set_weights(initial)
        km.compile(model, "quick", **settings)
    model.fit(batches(), epochs=1, verbose=0)
    moving = by_hand.non_trainable_weights
    for images, labels in batches():
        before, gradients, moved = [np.array(v) for v in moving], [], []
        for half in (slice(None, len(labels) // 2), slice(len(labels) // 2, None)):
            for variable, value in zip(moving, before, strict=True):
                variable.assign(value)
            with tf.GradientTape() as tape:
                scores = by_hand(images[half], training=True)
                loss = by_hand.compute_loss(images[half], labels[half], scores)
            gradients.append(tape.gradient(loss, by_hand.trainable_weights))
            moved.append([np.array(v) for v in moving])
        mean = [(one + other) / 2 for one, other in zip(*gradients, strict=True)]
        for variable, *halves in zip(moving, *moved, strict=True):
            variable.assign(np.mean(halves, axis=0))
        by_hand.optimizer.apply(mean, by_hand.trainable_weights)
    for found in (lambda m: m.get_weights(), get_averages):
        for ours, theirs in zip(found(model), found(by_hand), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    copies = [v.value.values for v in model.non_trainable_weights]
    for one, other in copies:
        np.testing.assert_array_equal(one, other)


def test_replicas_of_a_network_without_batch_norm(two_replicas):
    def losses(**settings):
        keras.utils.set_random_seed(0)
        layers = [keras.Input((32, 32, 3)), keras.layers.Flatten()]
        model = keras.Sequential([*layers, keras.layers.Dense(4, "softmax")])
        settings |= {"learning_rate": 1e-4, "steps_per_epoch": 4, **QUIET}
        km.compile(model, "quick", **settings)
        return model.fit(batches(), epochs=2, verbose=0).history["loss"]

    with two_replicas.scope():
        own = losses(synchronize_batch_norm=False)
        assert own == pytest.approx(losses(), rel=1e-6)


def test_a_short_run_is_warned_about():
    with pytest.warns(UserWarning, match="batch_norm_momentum=0.997 needs about 1000"):
        km.compile(small(), "slim_v2", steps_per_epoch=10, epochs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        km.compile(small(), "slim_v2", steps_per_epoch=1000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": "slim_v3"}, "recipe must be one of .*did you mean"),
        ({"learning_rat": 1}, "learning_rat.*did you mean 'learning_rate'"),
        ({"learning_rate": 0}, "learning_rate must be .*above 0 .*got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be .*got nan"),
        ({"momentum": 1.5}, "momentum must be .*below 1; got 1.5"),
        ({"label_smoothing": 1}, "label_smoothing must be .*below 1"),
        ({"ema_decay": 1}, "ema_decay must be .*below 1; got 1; or None"),
        ({"optimizer": "adam"}, "optimizer must be one of"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be .*got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        km.compile(small(), **{"steps_per_epoch": 5, **arguments})


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"include_top": False}, "include_top=True"),
        ({"classifier_activation": "sigmoid"}, "softmax or in logits .*sigmoid"),
    ],
)
def test_models_without_a_softmax_are_refused(network, message):
    with pytest.raises(ValueError, match=message):
        km.compile(small(**network), steps_per_epoch=5)
