import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mobilenets as km

SHAPES = [(3, 3, 2, 4), (4,), (7, 5)]


def gradients(step: int) -> list[np.ndarray]:
    rng = np.random.default_rng(step)
    scale = 10.0 ** rng.uniform(-4, 1)
    return [(rng.normal(0, scale, s)).astype("float32") for s in SHAPES]


def start() -> list[np.ndarray]:
    rng = np.random.default_rng(99)
    return [rng.normal(0, 1, shape).astype("float32") for shape in SHAPES]


@pytest.mark.parametrize("epsilon", [1e-10, 1e-3, 1.0])
def test_200_steps_are_those_of_tensorflow_1(epsilon):
    ours = [keras.Variable(value) for value in start()]
    theirs = [tf.Variable(value) for value in start()]
    optimizer = km.RMSprop(0.045, rho=0.9, momentum=0.9, epsilon=epsilon)
    reference = tf.compat.v1.train.RMSPropOptimizer(
        0.045, decay=0.9, momentum=0.9, epsilon=epsilon
    )
    for step in range(200):
        values = gradients(step)
        optimizer.apply([tf.constant(g) for g in values], ours)
        reference.apply_gradients(
            [(tf.constant(g), v) for g, v in zip(values, theirs, strict=True)]
        )
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(np.array(our), their.numpy(), rtol=1e-6)


def test_formula_by_hand():
    """float64 NumPy, with another start of the accumulator."""
    variable = keras.Variable(np.array([1.0, -2.0]), dtype="float64")
    optimizer = km.RMSprop(
        0.1, rho=0.8, momentum=0.5, epsilon=1e-3, initial_accumulator=0.0
    )
    w, square, buffer = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for step in range(5):
        g = np.array([0.3, -0.1]) * (step + 1)
        optimizer.apply([tf.constant(g)], [variable])
        square += (g**2 - square) * (1 - 0.8)
        buffer = 0.5 * buffer + np.float32(0.1) * g / np.sqrt(square + 1e-3)
        w = w - buffer
    np.testing.assert_allclose(np.array(variable), w, rtol=1e-7)


def test_a_sparse_gradient_is_applied_as_a_dense_one():
    table = np.ones((4, 2), "float32")
    sparse, dense = keras.Variable(table), keras.Variable(table)
    slices = tf.IndexedSlices(tf.ones([1, 2]), tf.constant([2]), tf.constant([4, 2]))
    km.RMSprop().apply([slices], [sparse])
    km.RMSprop().apply([tf.convert_to_tensor(slices)], [dense])
    np.testing.assert_array_equal(np.array(sparse), np.array(dense))
    assert not np.array_equal(np.array(dense), table)


def test_in_any_keras_model_saved_and_restored(tmp_path):
    x = np.random.default_rng(0).normal(0, 1, (64, 3)).astype("float32")
    y = x.sum(axis=1, keepdims=True)

    def make():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile(km.RMSprop(0.01, clipnorm=1.0), loss="mse")
        return model

    model = make()
    losses = model.fit(x, y, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.1 * losses[0]
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(restored.optimizer, km.RMSprop)
    assert restored.optimizer.get_config() == model.optimizer.get_config()
    for one, other in zip(
        restored.optimizer.variables, model.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(np.array(one), np.array(other))
    one = model.train_on_batch(x, y)
    assert restored.train_on_batch(x, y) == pytest.approx(one, rel=1e-6)
    np.testing.assert_array_equal(restored.get_weights()[0], model.get_weights()[0])


def test_two_replicas_take_the_step_of_one(two_replicas):
    x = np.random.default_rng(0).normal(0, 1, (64, 3)).astype("float32")
    y = x.sum(axis=1, keepdims=True)

    def trained():
        layer = keras.layers.Dense(1, kernel_initializer="ones")
        model = keras.Sequential([keras.Input((3,)), layer])
        model.compile(km.RMSprop(0.01), loss="mse")
        model.fit(x, y, epochs=3, batch_size=16, shuffle=False, verbose=0)
        return model.get_weights()[0]

    one = trained()
    with two_replicas.scope():
        two = trained()
    np.testing.assert_allclose(two, one, rtol=1e-5)


@pytest.mark.parametrize(
    "argument",
    [
        {"rho": 1.0},
        {"rho": float("nan")},
        {"rho": "x"},
        {"momentum": -0.1},
        {"momentum": None},
        {"epsilon": -1},
        {"epsilon": float("inf")},
        {"initial_accumulator": float("nan")},
        {"learning_rate": float("nan")},
        {"learning_rate": "x"},
        {"learning_rate": -1},
        {"learning_rate": {}},
        {"learning_rate": {"class_name": "Nothing", "config": {}}},
    ],
    ids=str,
)
def test_bad_arguments(argument):
    """A rate of NaN was taken, and text ended in a TypeError."""
    (name,) = argument
    with pytest.raises(km.UsageError, match=f"{name} must be"):
        km.RMSprop(**argument)
