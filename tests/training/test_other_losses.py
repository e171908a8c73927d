"""Other losses than a recipe's cross entropy, by `compile` and `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_mobilenets as km

pytestmark = pytest.mark.usefixtures("few_blocks")

PLAIN = {"steps_per_epoch": 4, "label_smoothing": 0, "batch_norm_momentum": 0.5}


def network(classes=3, activation="sigmoid"):
    keras.utils.set_random_seed(0)
    return km.build(
        "mobilenet_v1",
        alpha=0.25,
        resolution=32,
        classes=classes,
        classifier_activation=activation,
    )


def vectors(*end):
    return keras.Sequential([keras.Input((4,)), *end])


def multi_label(images=64):
    """Bright red, green or blue, or several of them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (images, 3))
    x = rng.normal(0, 0.2, (images, 32, 32, 3)) + labels[:, None, None, :] - 0.5
    return x.astype("float32"), labels.astype("float32")


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_several_labels_an_image_are_learned(activation):
    x, y = multi_label()
    model = network(activation=activation)
    zero = 0.5 if activation else 0.0
    accuracy = keras.metrics.BinaryAccuracy(name="accuracy", threshold=zero)
    km.compile(model, "quick", loss="binary_crossentropy", metrics=[accuracy], **PLAIN)
    assert model.loss.from_logits == (activation is None)
    history = model.fit(x, y, batch_size=16, epochs=12, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    figures = model.evaluate(x, y, verbose=0, return_dict=True)
    assert figures["accuracy"] > 0.95
    assert ((model.predict(x, verbose=0) > zero) == y).mean() == pytest.approx(
        figures["accuracy"]
    )


def test_the_loss_is_kerass_and_weight_decay_stays():
    x, y = multi_label(8)
    model = network()
    km.compile(model, "slim_v2", loss="binary_crossentropy", weight_decay=0.1, **PLAIN)
    scores = model(x, training=False)
    expected = keras.losses.BinaryCrossentropy()(y, scores)
    kernels = [v for v in model.weights if v.regularizer is not None]
    assert kernels
    expected += sum(0.05 * tf.reduce_sum(tf.square(v)) for v in kernels)
    assert float(model.compute_loss(x, y, scores)) == pytest.approx(
        float(expected), rel=1e-5
    )


def test_it_is_traced_once_and_read_back_from_its_file(tmp_path):
    x, y = multi_label()
    model = network()
    km.compile(model, "quick", loss="binary_crossentropy", **PLAIN)
    traces = []
    step = model.train_step
    model.train_step = lambda data: (traces.append(1), step(data))[1]
    model.fit(x, y, batch_size=16, epochs=2, verbose=0)
    assert len(traces) == 1
    model.train_step = step
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    ours = model.evaluate(x, y, verbose=0)
    assert loaded.evaluate(x, y, verbose=0) == pytest.approx(ours, rel=1e-5)
    loaded.fit(x, y, batch_size=16, verbose=0)


def test_two_replicas_train_with_it(two_replicas):
    x, y = multi_label()
    with two_replicas.scope():
        model = network()
        km.compile(
            model, "quick", loss="binary_crossentropy",
            metrics=["binary_accuracy"], synchronize_batch_norm=True, **PLAIN,
        )  # fmt: skip
    two = model.fit(x, y, batch_size=16, shuffle=False, verbose=0).history
    model = network()
    km.compile(
        model, "quick", loss="binary_crossentropy", metrics=["binary_accuracy"],
        **PLAIN,
    )  # fmt: skip
    one = model.fit(x, y, batch_size=16, shuffle=False, verbose=0).history
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-2)


def test_one_output_and_numbers_to_meet():
    """Regression, and a loss that is a function."""
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    y = x.sum(axis=1, keepdims=True)

    def distance(labels, scores):
        return tf.reduce_mean(tf.abs(labels - scores), axis=-1)

    for loss in ("mean_squared_error", keras.losses.Huber(), distance):
        model = vectors(layers.Dense(1))
        km.compile(
            model, "quick", loss=loss, metrics=["mae"], learning_rate=0.02, **PLAIN
        )
        history = model.fit(x, y, batch_size=16, epochs=20, verbose=0).history
        assert history["mae"][-1] < history["mae"][0] / 2


def test_two_classes_with_one_output():
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    y = (x.sum(axis=1) > 0).astype("int32")
    model = vectors(layers.Dense(1))
    accuracy = keras.metrics.BinaryAccuracy(name="accuracy", threshold=0)
    km.compile(
        model, "quick", loss="binary_crossentropy", metrics=[accuracy],
        learning_rate=0.05, **PLAIN,
    )  # fmt: skip
    history = model.fit(x, y, batch_size=16, epochs=20, verbose=0).history
    assert history["accuracy"][-1] > 0.9


def test_one_hot_labels_with_smoothing_of_keras():
    """The same loss as the recipe's own on whole numbers."""
    labels = np.array([0, 2, 1, 2])
    x = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("float32")
    model = network(activation="softmax")
    km.compile(model, "quick", steps_per_epoch=4, label_smoothing=0.1)
    ours = float(model.compute_loss(x, labels, model(x, training=False)))
    km.compile(
        model,
        "quick",
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        **PLAIN,
    )
    one_hot = tf.one_hot(labels, 3)
    theirs = float(model.compute_loss(x, one_hot, model(x, training=False)))
    assert theirs == pytest.approx(ours, rel=1e-5)


def test_metrics_take_the_place_of_accuracy():
    model = network(activation="softmax")
    top2 = keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top2")
    km.compile(model, "quick", metrics=[top2], **PLAIN)
    x, y = multi_label(16)
    figures = model.evaluate(x, y.argmax(axis=1), verbose=0, return_dict=True)
    assert sorted(figures) == ["loss", "top2"]


BINARY = keras.losses.BinaryCrossentropy
CASES = [
    ({"loss": "binary_crosentropy"}, "loss must .*did you mean 'binary_crossentropy'"),
    ({"loss": 3}, "loss must be a Keras loss.* got 3"),
    ({"loss": BINARY}, "loss must be a Keras loss.* got <class"),
    ({"loss": ["mse"]}, r"loss must be a Keras loss.* got \['mse'\]"),
    ({"loss": "mse", "from_logits": True}, "from_logits is for cross entropies"),
    ({"loss": "categorical_crossentropy"}, "must end in softmax or in logits"),
    ({"loss": BINARY(from_logits=True)}, "what the model ends in, sigmoid; .*=False"),
    ({"loss": "mse", "metrics": "mae"}, "metrics must be a list .* got 'mae'"),
    ({"loss": "mse", "metrics": ["mae", 3]}, "metrics must hold .* got 3"),
    ({"loss": "mse", "label_smoothing": 0.1}, "label_smoothing is of the recipe's own"),
]


@pytest.mark.parametrize(("options", "message"), CASES, ids=[c[1] for c in CASES])
def test_what_does_not_agree_is_refused(options, message):
    model = network()
    with pytest.raises(ValueError, match=message):
        km.compile(model, "quick", **{**PLAIN, **options})
    assert not model.compiled


def test_smoothing_of_the_recipe_is_never_dropped_in_silence():
    with pytest.raises(ValueError, match=r"got 0\.1 with loss='mse'.*label_smooth"):
        km.compile(network(), "slim_v2", steps_per_epoch=4, loss="mse")


def test_one_class_needs_another_loss():
    with pytest.raises(ValueError, match="give loss='binary_crossentropy'"):
        km.compile(vectors(layers.Dense(1)), "quick", **PLAIN)
