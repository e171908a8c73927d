import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mobilenets as km
from keras_mobilenets.training.batch_norm import use_fused

X = np.random.default_rng(0).normal(1, 2, (4, 5, 5, 3)).astype("float32")


def make(
    dtype: str | None = None, synchronized: bool = False, channels: int = 3
) -> keras.Model:
    dtype_in = "float64" if dtype == "float64" else None
    inputs = keras.Input((None, None, channels), dtype=dtype_in)
    layer = keras.layers.BatchNormalization(
        momentum=0.9, synchronized=synchronized, dtype=dtype, name="bn"
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


def test_the_layer_stays_a_plain_keras_layer(tmp_path):
    model = make()
    set_random(model)
    use_fused(model, momentum=0.5)
    layer = model.get_layer("bn")
    assert type(layer) is keras.layers.BatchNormalization
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("bn").momentum == 0.5
    np.testing.assert_allclose(
        np.array(loaded(X)), np.array(model(X)), rtol=1e-5, atol=1e-5
    )


def test_recalibration_finds_the_statistics_of_the_data():
    model = make()
    use_fused(model)
    rng = np.random.default_rng(3)
    batches = [rng.normal(k, k + 1, (8, 5, 5, 3)).astype("float32") for k in range(4)]
    km.recalibrate(model, [(batch, np.zeros(8)) for batch in batches])
    everything = np.concatenate(batches)
    _, _, mean, variance = model.get_weights()
    np.testing.assert_allclose(mean, everything.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(variance, everything.var((0, 1, 2)), rtol=1e-2)
    assert model.get_layer("bn").momentum == 0.9
    km.recalibrate(model, batches, batches=1)
    np.testing.assert_allclose(
        model.get_weights()[2], batches[0].mean((0, 1, 2)), rtol=1e-3, atol=1e-4
    )


def test_recalibration_needs_data():
    with pytest.raises(ValueError, match="dataset must yield at least one batch"):
        km.recalibrate(make(), [])
    with pytest.raises(ValueError, match="batches must be at least 1; got 0"):
        km.recalibrate(make(), [X], batches=0)
