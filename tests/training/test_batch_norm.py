import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_mobilenets.training.batch_norm import batch_norms, make_call

X = np.random.default_rng(0).normal(1, 2, (4, 5, 5, 3)).astype("float32")


def use_fused(model: keras.Model, synchronized: bool = False) -> None:
    """What binding a model to a recipe does to its batch norms."""
    for layer in batch_norms(model):
        layer.call = make_call(layer, synchronized)


def make(dtype: str | None = None, channels: int = 3, **settings) -> keras.Model:
    dtype_in = "float64" if dtype == "float64" else None
    inputs = keras.Input((None, None, channels), dtype=dtype_in)
    layer = keras.layers.BatchNormalization(
        momentum=0.9, dtype=dtype, name="bn", **settings
    )
    return keras.Model(inputs, layer(inputs))


def set_random(model: keras.Model) -> None:
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.5, 2, w.shape) for w in model.get_weights()])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_outputs_are_kerass_and_the_moving_variance_is_unbiased(dtype):
    plain, fused = make(dtype), make(dtype)
    set_random(plain)
    fused.set_weights(plain.get_weights())
    use_fused(fused)
    before = plain.get_weights()
    for training in (True, False):
        expected = np.array(plain(X.astype(dtype), training=training))
        actual = np.array(fused(X.astype(dtype), training=training))
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)
        fused.set_weights(plain.get_weights() if training else fused.get_weights())
    fused.set_weights(before)
    fused(X.astype(dtype), training=True)
    _, _, mean, variance = fused.get_weights()
    np.testing.assert_allclose(
        mean, before[2] * 0.9 + X.mean((0, 1, 2)) * 0.1, rtol=1e-5
    )
    np.testing.assert_allclose(
        variance, before[3] * 0.9 + X.var((0, 1, 2), ddof=1) * 0.1, rtol=1e-5
    )


# Channels that fill vectors and that do not; pixels in rows of sixteen and not.
@pytest.mark.parametrize(
    "shape", [(4, 4, 4, 8), (3, 5, 5, 8), (4, 4, 4, 7), (3, 5, 5, 7)], ids=str
)
def test_training_is_the_elementary_forms(shape):
    x = np.random.default_rng(2).normal(3, 2, shape).astype("float32")
    plain, fused = make(channels=shape[-1]), make(channels=shape[-1])
    set_random(plain)
    fused.set_weights(plain.get_weights())
    use_fused(fused)

    def outputs_and_gradients(model):
        image = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(image)
            y = model(image, training=True)
            loss = tf.reduce_sum(
                tf.sin(y) * tf.range(y.shape[1], dtype=y.dtype)[:, None, None]
            )
        return [y, *tape.gradient(loss, [image, *model.trainable_variables])]

    results = zip(
        outputs_and_gradients(fused), outputs_and_gradients(plain), strict=True
    )
    for ours, theirs in results:
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        fused.get_weights()[2], plain.get_weights()[2], rtol=1e-5
    )
    count = x.size // shape[-1]
    start = make(channels=shape[-1])
    set_random(start)
    biased = plain.get_weights()[3] - 0.9 * start.get_weights()[3]
    unbiased = fused.get_weights()[3] - 0.9 * start.get_weights()[3]
    np.testing.assert_allclose(unbiased, biased * count / (count - 1), rtol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    model = make(policy)
    set_random(model)
    expected = np.array(model(X, training=True), "float32")
    before = model.get_weights()
    use_fused(model)
    actual = model(X, training=True)
    assert keras.backend.standardize_dtype(actual.dtype) == policy.removeprefix(
        "mixed_"
    )
    np.testing.assert_allclose(np.array(actual, "float32"), expected, atol=0.05)
    assert not np.array_equal(model.get_weights()[2], before[2])
    assert model.get_weights()[2].dtype == "float32"


def test_a_frozen_layer_keeps_its_statistics():
    model = make()
    use_fused(model)
    model.get_layer("bn").trainable = False
    before = model.get_weights()
    frozen = np.array(model(X, training=True))
    np.testing.assert_array_equal(frozen, np.array(model(X, training=False)))
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_replicas_share_their_statistics(two_replicas):
    alone = make()
    use_fused(alone)
    expected = np.array(alone(X, training=True))
    with two_replicas.scope():
        model = make()
    use_fused(model, synchronized=True)
    halves = two_replicas.experimental_distribute_values_from_function(
        lambda c: X[2 * c.replica_id_in_sync_group :][:2]
    )
    run = tf.function(
        lambda x: two_replicas.run(lambda part: model(part, training=True), args=(x,))
    )
    outputs = two_replicas.experimental_local_results(run(halves))
    np.testing.assert_allclose(np.concatenate(outputs), expected, atol=1e-5)
    for ours, theirs in zip(model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_layer_stays_a_plain_keras_layer(tmp_path, two_replicas):
    """Files of models from several replicas said synchronized=True, for TensorFlow."""
    with two_replicas.scope():
        model = make()
    set_random(model)
    use_fused(model, synchronized=True)
    layer = model.get_layer("bn")
    assert type(layer) is keras.layers.BatchNormalization
    assert not layer.get_config()["synchronized"]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        np.array(loaded(X)), np.array(model(X)), rtol=1e-5, atol=1e-5
    )


def test_layers_that_the_kernel_does_not_fit_synchronize_too(two_replicas):
    """By Keras' own computation; their attribute stays as it was."""

    def dense() -> keras.Model:
        layers = [keras.Input((3,)), keras.layers.BatchNormalization(momentum=0.5)]
        return keras.Sequential(layers)

    x = X[:, 0, 0]
    alone = dense()
    expected = np.array(alone(x, training=True))
    with two_replicas.scope():
        model = dense()
    use_fused(model, synchronized=True)
    run = tf.function(
        lambda x: two_replicas.run(lambda part: model(part, training=True), args=(x,))
    )
    outputs = two_replicas.experimental_local_results(run(halves(two_replicas, x)))
    np.testing.assert_allclose(np.concatenate(outputs), expected, atol=1e-5)
    assert not model.layers[0].synchronized


def halves(strategy: tf.distribute.Strategy, x: np.ndarray):
    half = len(x) // 2
    return strategy.experimental_distribute_values_from_function(
        lambda c: x[half * c.replica_id_in_sync_group :][:half]
    )


def gradients_in(policy, strategy, synchronized):
    """(dx, dgamma, dbeta) summed over replicas, and the reference in float64.

    One device stands for a strategy of None.
    """
    rng = np.random.default_rng(4)
    shape = (16, 8, 8, 8)
    # As in a network: means that are not 0, a gradient that is not centred.
    x = rng.normal(3, 2, shape)
    weight = rng.normal(1, 1, shape)
    half = {"mixed_float16": "float16", "mixed_bfloat16": "bfloat16"}.get(policy)
    if half:
        x, weight = (np.array(tf.cast(v, half), "float64") for v in (x, weight))

    def of(model, part, weights):
        part = tf.cast(part, model.get_layer("bn").compute_dtype)
        with tf.GradientTape() as tape:
            tape.watch(part)
            y = model(part, training=True)
        return tape.gradient(
            y, [part, *model.trainable_variables],
            output_gradients=tf.cast(weights, y.dtype),
        )  # fmt: skip

    def made(policy):
        model = make(policy, channels=shape[-1])
        model.get_layer("bn").gamma.assign(np.linspace(0.5, 2, shape[-1]))
        return model

    if strategy is None:
        model = made(policy)
        use_fused(model)
        found = [of(model, x, weight)]
    else:
        with strategy.scope():
            model = made(policy)
        use_fused(model, synchronized)
        parts = [halves(strategy, value) for value in (x, weight)]
        run = tf.function(
            lambda x, w: strategy.run(lambda *a: of(model, *a), args=(x, w))
        )
        per_replica = run(*parts)
        found = list(
            zip(*map(strategy.experimental_local_results, per_replica), strict=True)
        )
    whole = strategy is None or synchronized
    exact = made("float64")
    pieces = [slice(None)] if whole else [slice(0, 8), slice(8, None)]
    reference = [of(exact, x[piece], weight[piece]) for piece in pieces]

    def joined(results):
        dx, dgamma, dbeta = (
            [np.array(tf.cast(v, "float64")) for v in part]
            for part in zip(*results, strict=True)
        )
        return np.concatenate(dx), sum(dgamma), sum(dbeta)

    return joined(found), joined(reference)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("synchronized", [True, False], ids=["together", "own"])
def test_gradients_on_replicas_are_as_good_as_the_kernels(
    policy, synchronized, two_replicas
):
    """In half precision a gradient was rounded before its correction was added."""

    def errors(strategy, synchronized):
        found, exact = gradients_in(policy, strategy, synchronized)
        off = [
            np.linalg.norm(f - e) / np.linalg.norm(e)
            for f, e in zip(found, exact, strict=True)
        ]
        return off, np.abs(found[0].sum((0, 1, 2))).max()  # which is 0

    kernel, kernel_sum = errors(None, False)
    replicas, replicas_sum = errors(two_replicas, synchronized)
    for ours, theirs in zip(replicas, kernel, strict=True):
        assert ours < 2 * theirs + 1e-6
    assert replicas_sum < 4 * kernel_sum + 1e-3  # it was eighty times


def network(policy: str) -> keras.Model:
    """Three convolutions, each with batch norm, as in a block of the papers."""
    layers = keras.layers
    inputs = keras.Input((16, 16, 8), dtype="float64" if policy == "float64" else None)
    x = inputs
    for convolution in (
        layers.Conv2D(16, 1, use_bias=False, dtype=policy),
        layers.DepthwiseConv2D(3, use_bias=False, dtype=policy),
        layers.Conv2D(8, 1, use_bias=False, dtype=policy),
    ):
        x = layers.BatchNormalization(dtype=policy)(convolution(x))
        x = layers.ReLU(6.0, dtype=policy)(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("synchronized", [True, False], ids=["together", "own"])
def test_gradients_of_a_network_on_replicas_are_as_good_as_on_one_device(
    policy, synchronized, two_replicas
):
    """Within twice the error of the kernel on one device, against float64."""
    rng = np.random.default_rng(5)
    x = rng.normal(1, 1, (16, 16, 16, 8)).astype("float32")
    exact = network("float64")
    values = [rng.normal(0, 0.5, w.shape) + (w == 1) for w in exact.get_weights()]
    values = [np.abs(v) if v.ndim == 1 else v for v in values]
    output = rng.normal(0.2, 1, exact(x[:1]).shape[1:])

    def gradients(model, part):
        with tf.GradientTape() as tape:
            y = tf.cast(model(part, training=True), tf.float64)
            loss = tf.reduce_sum(y * output)
        found = tape.gradient(loss, model.trainable_variables)
        return [tf.cast(gradient, tf.float64) for gradient in found]

    def on_one_device(policy, parts):
        model = network(policy)
        use_fused(model)
        model.set_weights(values)
        each = [gradients(model, part) for part in parts]
        return [sum(map(np.array, gs)) for gs in zip(*each, strict=True)]

    with two_replicas.scope():
        model = network(policy)
        model.set_weights(values)
    use_fused(model, synchronized)
    run = tf.function(
        lambda x: two_replicas.run(lambda part: gradients(model, part), args=(x,))
    )
    found = [
        sum(map(np.array, two_replicas.experimental_local_results(g)))
        for g in run(halves(two_replicas, x))
    ]
    parts = [x] if synchronized else [x[:8], x[8:]]
    reference, one = (on_one_device(p, parts) for p in ("float64", policy))

    def error(actual):
        off = sum(np.sum((a - r) ** 2) for a, r in zip(actual, reference, strict=True))
        return np.sqrt(off / sum(np.sum(r**2) for r in reference))

    assert error(one) < 0.1  # the yardstick is one
    assert error(found) < 2 * error(one)
