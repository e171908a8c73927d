"""What binding a model to a recipe changes, and that all of it can be undone."""

import copy
import importlib
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mobilenets as km
from keras_mobilenets import training
from keras_mobilenets.training.averaging import get_averages
from keras_mobilenets.training.step import is_bound

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(0, 1, (16, 8, 8, 3)).astype("float32")
Y = np.arange(16) % 4
SETTINGS = {"steps_per_epoch": 2, "batch_norm_momentum": 0.5, "epochs": 99}


def make(policy: str | None = None, dropout: float = 0.3) -> keras.Model:
    keras.utils.set_random_seed(1)
    keras.config.set_dtype_policy(policy or "float32")
    try:
        inputs = keras.Input((8, 8, 3))
        kernel = keras.regularizers.L2(0.1)  # its maker's own
        x = keras.layers.Conv2D(8, 3, kernel_regularizer=kernel)(inputs)
        x = keras.layers.BatchNormalization(name="bn")(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        x = keras.layers.Dropout(dropout, seed=2)(x)
        outputs = keras.layers.Dense(4, "softmax", dtype="float32")(x)
        return keras.Model(inputs, outputs)
    finally:
        keras.config.set_dtype_policy("float32")


def fit(model: keras.Model, epochs: int = 2) -> list[float]:
    history = model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return history.history["loss"]


def assert_same(ours, theirs) -> None:
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(other))


def compile_stock(model: keras.Model) -> None:
    model.compile(
        keras.optimizers.SGD(0.1),
        "sparse_categorical_crossentropy",
        weighted_metrics=["accuracy"],
    )


def test_compile_by_hand_leaves_nothing_of_the_recipe():
    """The averages and the weight decay of the recipe stayed in a stock step."""
    twin, model = make(), make()
    compile_stock(twin)
    attributes = [set(vars(layer)) for layer in [model, *model.layers]]
    km.compile(model, "slim_v2", dropout=0.1, **SETTINGS)
    assert is_bound(model)
    compile_stock(model)
    assert not is_bound(model)
    assert fit(model) == fit(twin)
    assert_same(model.get_weights(), twin.get_weights())
    for layer, other in zip(model.layers, twin.layers, strict=True):
        config, expected = layer.get_config(), other.get_config()
        for of_graph in ("name", "build_config"):
            config.pop(of_graph, None), expected.pop(of_graph, None)
        assert config == expected
    for layer, before in zip([model, *model.layers], attributes, strict=True):
        new = set(vars(layer)) - before
        assert not new & {"call", "compile", "train_step", "test_step"}


def test_a_compile_that_fails_changes_nothing():
    model = make()
    km.compile(model, "quick", **SETTINGS)
    with pytest.raises(ValueError, match="optimizer"):
        model.compile("no such optimizer")
    with pytest.raises(km.UsageError, match="learning_rate"):
        km.compile(model, "quick", learning_rate=-1, **SETTINGS)
    assert is_bound(model)
    fit(model)


def test_twice_compiled_is_once_compiled():
    once, twice = make(), make()
    km.compile(twice, "slim_v1", **SETTINGS)
    for model in (once, twice):
        km.compile(model, "quick", **SETTINGS)
    assert fit(once) == fit(twice)
    assert_same(once.get_weights(), twice.get_weights())
    assert_same(get_averages(once), get_averages(twice))
    compile_stock(twice)  # back to what it was at first
    assert twice.get_layer("bn").momentum == 0.99
    assert twice.layers[4].rate == 0.3
    assert float(twice.layers[1].kernel.regularizer.l2) == pytest.approx(0.1)


def test_copies_have_a_step_of_their_own():
    model = make(dropout=0.0)
    km.compile(model, "quick", dropout=0.0, **SETTINGS)
    fit(model)
    for other in (copy.deepcopy(model), keras.models.clone_model(model)):
        assert other.train_step.model is other
        other.set_weights(model.get_weights())
        own = model.get_weights()
        fit(other)
        assert_same(model.get_weights(), own)
        compile_stock(other)
        assert is_bound(model)


def test_a_dropout_layer_that_was_made_without_rate_stays_off():
    """It has no random state: the first step ended in an AttributeError."""
    model = make(dropout=0.0)
    with pytest.warns(UserWarning, match="was made with rate 0"):
        km.compile(model, "quick", dropout=0.5, **SETTINGS)
    fit(model)
    assert model.layers[4].rate == 0.0


def test_half_precision_at_the_end_keeps_the_numbers_of_classes():
    """Labels in bfloat16 are even numbers above 256."""
    inputs = keras.Input((4,))
    dense = keras.layers.Dense(600, dtype="bfloat16")
    model = keras.Model(inputs, dense(inputs))
    km.compile(model, "quick", label_smoothing=0.0, **SETTINGS)
    x = np.zeros((1, 4), "float32")
    dense.bias.assign(100.0 * (np.arange(600) == 599))
    assert model.evaluate(x, np.array([599]), verbose=0)[0] < 0.01


# Gradients of batch norm in every precision, together and apart: test_batch_norm.py.
@pytest.mark.parametrize(
    ("policy", "synchronized"),
    [
        ("float32", True),
        ("mixed_float16", False),
        ("mixed_bfloat16", True),
        pytest.param("float32", False, marks=pytest.mark.slow),
        pytest.param("mixed_float16", True, marks=pytest.mark.slow),
        pytest.param("mixed_bfloat16", False, marks=pytest.mark.slow),
    ],
)
def test_two_replicas_take_the_steps_of_one(policy, synchronized, two_replicas):
    """To the precision of the type, where both halves of a batch are the same."""
    x, y = np.concatenate([X[:4], X[:4]]), np.concatenate([Y[:4], Y[:4]])

    def trained() -> keras.Model:
        model = make(policy)
        km.compile(
            model, "quick", dropout=0.0, learning_rate=0.01, scale_learning_rate=False,
            synchronize_batch_norm=synchronized, warmup_epochs=0, **SETTINGS,
        )  # fmt: skip
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
        losses = model.fit(data, epochs=6, verbose=0).history["loss"]
        assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 6
        return model, losses

    one, expected = trained()
    with two_replicas.scope():
        two, losses = trained()
    bar = {"float32": 1e-4, "mixed_float16": 2e-3, "mixed_bfloat16": 1e-2}[policy]
    np.testing.assert_allclose(losses, expected, rtol=bar)
    # A half has half the pixels, so its own unbiased variance is 0.35 % larger.
    rtol = bar if synchronized else max(bar, 5e-3)
    for ours, theirs in zip(two.get_weights(), one.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=bar)
    for ours, theirs in zip(get_averages(two), get_averages(one), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=bar)


def test_a_gradient_that_overflows_on_one_replica_skips_the_step_of_all(two_replicas):
    """Keras looks at the first replica, before the sum: the second's went through."""
    with two_replicas.scope():
        model = make("mixed_float16")
        km.compile(model, "quick", dropout=0.0, ema_decay=0.5, **SETTINGS)
    fit(model)
    trainable = [np.array(v) for v in model.trainable_weights]
    averages = get_averages(model)
    scale = float(keras.ops.convert_to_numpy(model.optimizer.dynamic_scale))
    weights = np.ones(8, "float32")
    weights[4:] = 1e30  # of the second replica's images
    model.train_on_batch(X[:8], Y[:8], sample_weight=weights)
    assert_same(model.trainable_weights, trainable)
    assert_same(get_averages(model), averages)
    now = float(keras.ops.convert_to_numpy(model.optimizer.dynamic_scale))
    assert now == scale / 2


def test_training_needs_keras_on_tensorflow(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(keras.config, "backend", lambda: "jax")
        with pytest.raises(km.UsageError, match="got the backend 'jax': set KERAS_"):
            importlib.reload(training)


@pytest.mark.parametrize("verb", ["train", "search"])
def test_a_backend_that_cannot_be_loaded_is_one_line(verb):
    """`KERAS_BACKEND=torch` of another project, where PyTorch is not installed."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from keras_mobilenets import __main__\n"
        f"sys.exit(__main__.main([{verb!r}]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "KERAS_BACKEND=tensorflow" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
