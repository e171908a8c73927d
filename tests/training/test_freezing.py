"""What a recipe freezes stays, and what it trains moves as far as it says."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mobilenets as km
from keras_mobilenets.training.averaging import get_averages

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(0, 1, (16, 8, 8, 3)).astype("float32")
Y = np.arange(16) % 4
SETTINGS = {"steps_per_epoch": 2, "batch_norm_momentum": 0.5, "epochs": 99}


def make(nested: bool = False) -> keras.Model:
    """Two blocks and a classifier; nested: in a model, behind augmentation."""
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 3))
    x = image
    for name in ("first", "second"):
        x = keras.layers.Conv2D(6, 3, use_bias=False, name=name)(x)
        x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
        x = keras.layers.ReLU(name=f"{name}_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    head = [keras.layers.Dropout(0.3, seed=2), keras.layers.Dense(4, name="logits")]
    if nested:
        inner = keras.Model(image, x, name="inner")
        parts = [keras.Input((8, 8, 3)), keras.layers.RandomFlip(seed=3), inner, *head]
        model = keras.Sequential(parts)
    else:
        for layer in head:
            x = layer(x)
        model = keras.Model(image, x)
    for v in model.weights:  # statistics and scales that are not at their start
        if v.name in ("gamma", "moving_variance"):
            v.assign(RANDOM.uniform(0.5, 1.5, v.shape))
        elif v.name in ("beta", "moving_mean"):
            v.assign(RANDOM.normal(0, 0.1, v.shape))
    return model


def values(model: keras.Model) -> dict[str, np.ndarray]:
    return {f"{v.path.split('/')[-2]}/{v.name}": np.array(v) for v in model.weights}


def fit(model: keras.Model, epochs: int = 2, first: int = 0) -> None:
    model.fit(
        X, Y, batch_size=8, initial_epoch=first, epochs=epochs, shuffle=False, verbose=0
    )


def moved(before: dict[str, np.ndarray], model: keras.Model) -> set[str]:
    """The weights that are no longer what they were, to the bit."""
    now = values(model)
    return {name for name in before if not np.array_equal(before[name], now[name])}


def of(*layers: str) -> set[str]:
    return {name for name in values(make()) if name.split("/")[0] in layers}


CLASSIFIER = of("logits")
STATISTICS = {name for name in values(make()) if "moving" in name}
CASES = {
    "nothing": ({}, set(values(make()))),
    "body": ({"freeze": "body"}, CLASSIFIER),
    "up to a layer": ({"freeze": "first"}, of("second", "second_bn", "logits")),
    "up to its norm": ({"freeze": "first_bn"}, of("second", "second_bn", "logits")),
    "up to the pool": ({"freeze": "pool"}, CLASSIFIER),
    "statistics": ({"batch_norm": "frozen"}, set(values(make())) - STATISTICS),
    "both": (
        {"freeze": "first", "batch_norm": "frozen"},
        of("second", "second_bn", "logits") - STATISTICS,
    ),
    "first the head": ({"head_epochs": 2}, CLASSIFIER),
    "then all": ({"head_epochs": 1}, set(values(make()))),
    "then some": (
        {"head_epochs": 1, "freeze": "first"},
        of("second", "second_bn", "logits"),
    ),
}


def flat_and_nested():
    """All of a network, and of one within another what finds its layers otherwise."""
    for case in CASES:
        yield pytest.param(case, False, id=f"{case}-flat")
        fast = case in ("body", "up to a layer", "then some")
        marks = () if fast else pytest.mark.slow
        yield pytest.param(case, True, id=f"{case}-nested", marks=marks)


@pytest.mark.parametrize(("case", "nested"), flat_and_nested())
def test_only_what_is_to_train_moves(case, nested):
    settings, expected = CASES[case]
    model = make(nested)
    km.compile(model, "slim_v2", **SETTINGS, **settings)
    before = values(model)
    flags = [layer.trainable for layer in model._flatten_layers()]
    averages = get_averages(model)
    fit(model)
    assert moved(before, model) == expected
    for name, old, new in zip(before, averages, get_averages(model), strict=True):
        assert np.array_equal(old, new) == (name not in expected), name
    assert [layer.trainable for layer in model._flatten_layers()] == flags


def test_the_owners_own_frozen_layers_stay_so():
    model = make()
    model.get_layer("second").trainable = False
    km.compile(model, "slim_v2", **SETTINGS, head_epochs=1)
    before = values(model)
    fit(model)
    assert moved(before, model) == set(before) - of("second")
    assert not model.get_layer("second").trainable


@pytest.mark.filterwarnings("ignore::UserWarning")  # TensorFlow's, of few CPUs
@pytest.mark.parametrize("synchronized", [False, True])
def test_on_two_replicas(two_replicas, synchronized):
    with two_replicas.scope():
        model = make()
        km.compile(
            model,
            "slim_v2",
            **SETTINGS,
            freeze="first",
            head_epochs=1,
            synchronize_batch_norm=synchronized,
            body_learning_rate=0.5,
        )
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8, drop_remainder=True)
    before = values(model)
    model.fit(data, epochs=1, verbose=0)
    assert moved(before, model) == CLASSIFIER
    model.fit(data, epochs=1, verbose=0)
    assert moved(before, model) == of("second", "second_bn", "logits")


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
def test_the_body_learns_at_a_share_of_the_rate(optimizer):
    """By hand: the formula of each optimizer, in NumPy, over four steps."""
    rate, share, momentum = 0.02, 0.25, 0.9
    model, twin = make(), make()
    twin.set_weights(model.get_weights())
    recipe = {
        "optimizer": optimizer,
        "learning_rate": rate,
        "decay_rate": 1.0,
        "dropout": 0.0,
        "weight_decay": 0.01,
        "weight_decay_scope": "all",
        "label_smoothing": 0.0,
        "batch_norm": "frozen",
        "ema_decay": None,
    }
    km.compile(model, "slim_v2", **SETTINGS, **recipe, body_learning_rate=share)
    square = [np.ones(v.shape) for v in twin.trainable_weights]
    buffer = [np.zeros(v.shape) for v in twin.trainable_weights]
    for step in range(4):
        x, y = X[step::2], Y[step::2]
        model.train_on_batch(x, y)
        with tf.GradientTape() as tape:
            scores = twin(x, training=False)
            loss = keras.losses.sparse_categorical_crossentropy(y, scores, True)
            decay = sum(tf.reduce_sum(v**2) for v in twin.trainable_weights)
            loss = tf.reduce_mean(loss) + 0.01 / 2 * decay
        for n, (v, g) in enumerate(
            zip(
                twin.trainable_weights,
                tape.gradient(loss, twin.trainable_weights),
                strict=True,
            )
        ):
            g = np.array(g, "float64")
            own = rate * (1 if "logits" in v.path else share)
            if optimizer == "rmsprop":
                square[n] += (g**2 - square[n]) * (1 - 0.9)
                g = g / np.sqrt(square[n] + 1.0)
            buffer[n] = momentum * buffer[n] + own * g
            v.assign(v - buffer[n])
    for name, value in values(twin).items():
        np.testing.assert_allclose(values(model)[name], value, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("epoch", "policy"),
    [
        (1, "float32"),
        (2, "mixed_float16"),
        (3, "float32"),
        pytest.param(1, "mixed_float16", marks=pytest.mark.slow),
        pytest.param(2, "float32", marks=pytest.mark.slow),
        pytest.param(3, "mixed_float16", marks=pytest.mark.slow),
    ],
)
def test_saved_with_the_model(epoch, policy, tmp_path):
    """In the head's epochs, between, and after them; Keras binds it again."""
    keras.config.set_dtype_policy(policy)
    try:
        model = make()
        km.compile(
            model,
            "slim_v2",
            **SETTINGS,
            head_epochs=2,
            freeze="first",
            body_learning_rate=0.3,
            batch_norm="frozen",
            dropout=0.0,  # Keras does not save where random numbers have come to
        )
        fit(model, epoch)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        before = values(model)
        for one in (model, loaded):
            fit(one, 4, first=epoch)
        assert moved(before, model) == of("second", "second_bn", "logits") - STATISTICS
        for name, value in values(model).items():
            np.testing.assert_array_equal(values(loaded)[name], value, err_msg=name)
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_file_of_an_older_version(tmp_path):
    """Its optimizer's configuration knows nothing of freezing."""
    model = make()
    km.compile(model, "slim_v2", **SETTINGS)
    config = keras.saving.serialize_keras_object(model.optimizer)
    for field in ("freeze", "body_learning_rate", "batch_norm", "head_steps"):
        del config["config"]["recipe"][field]
    optimizer = keras.saving.deserialize_keras_object(config)
    assert optimizer.recipe == model.optimizer.recipe


def test_compiled_by_hand_nothing_is_frozen_any_more():
    model = make()
    km.compile(
        model, "slim_v2", **SETTINGS, freeze="first", head_epochs=9, batch_norm="frozen"
    )
    fit(model)
    before = values(model)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    fit(model)
    assert moved(before, model) == set(before)
    assert "make_train_function" not in vars(model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"freeze": "frist"},
            "from 'first' to 'dropout.*'; got 'frist'; did you mean 'first'",
        ),
        ({"freeze": "logits"}, "before its classifier.*got 'logits'$"),
        ({"head_epochs": 100}, "at most the 99 epochs.*got 100"),
        ({"body_learning_rate": 0}, "above 0 and at most 1; got 0"),
        ({"batch_norm": "freeze"}, "'frozen', 'recalibrate'; got 'freeze'; did you"),
        ({"freeze": "body", "batch_norm": "recalibrate"}, "nothing to compute anew"),
    ],
)
def test_refused_in_one_line(settings, message):
    model = make()
    if settings == {"freeze": "logits"}:
        model = keras.Model(model.inputs, model.outputs)
    with pytest.raises(ValueError, match=message) as caught:
        km.compile(model, "slim_v2", **SETTINGS, **settings)
    assert "\n" not in str(caught.value)
    assert not model.compiled


def test_nothing_left_to_train():
    model = make()
    model.get_layer("logits").trainable = False
    for settings in ({"freeze": "body"}, {"head_epochs": 1}):
        with pytest.raises(ValueError, match="nothing to train"):
            km.compile(model, "slim_v2", **SETTINGS, **settings)
    km.compile(model, "slim_v2", **SETTINGS)


def test_a_model_without_one_classifier():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(image)
    both = [keras.layers.Dense(4)(x), keras.layers.Dense(4)(x)]
    model = keras.Model(image, keras.layers.Softmax()(keras.layers.Add()(both)))
    km.compile(model, "slim_v2", **SETTINGS)  # as before
    with pytest.raises(ValueError, match="one layer with weights, its classifier"):
        km.compile(model, "slim_v2", **SETTINGS, freeze="body")
    with pytest.raises(ValueError, match="one layer with weights, its classifier"):
        km.compile(model, "slim_v2", **SETTINGS, body_learning_rate=0.1)
