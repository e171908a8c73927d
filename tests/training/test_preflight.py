"""Every combination that is refused, on real strategies, and those that are not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mobilenets as km


def make(**compiled) -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(**{"optimizer": keras.optimizers.SGD(), "loss": "mse", **compiled})
    return model


def batches(size: int, full: bool = True) -> tf.data.Dataset:
    data = tf.data.Dataset.from_tensor_slices((np.zeros((9, 4)), np.zeros((9, 1))))
    return data.batch(size, drop_remainder=full)


@pytest.mark.parametrize(
    ("compiled", "data", "message"),
    [
        ({"jit_compile": True}, None, "jit_compile=True fails under a strategy"),
        ({"steps_per_execution": 2}, None, "steps_per_execution above 1"),
        (
            {"optimizer": lambda: keras.optimizers.SGD(gradient_accumulation_steps=2)},
            None,
            "gradient_accumulation_steps",
        ),
        (
            {
                "optimizer": lambda: keras.optimizers.SGD(
                    use_ema=True, ema_overwrite_frequency=2
                )
            },
            None,
            "ema_overwrite_frequency",
        ),
        ({}, lambda: batches(1), "batch smaller than the number of replicas"),
        ({}, lambda: batches(8, full=False), "drop_remainder=True"),
    ],
)
def test_what_breaks_on_two_replicas_is_refused(compiled, data, message, two_replicas):
    with two_replicas.scope():
        model = make(**{k: v() if callable(v) else v for k, v in compiled.items()})
    with pytest.raises(ValueError, match=f"on 2 replicas: .*{message}"):
        km.preflight(model, data and data())


def test_all_that_is_wrong_is_said_at_once(two_replicas):
    with two_replicas.scope():
        model = make(jit_compile=True, steps_per_execution=2)
    with pytest.raises(ValueError, match="jit_compile.*steps_per_execution.*smaller"):
        km.preflight(model, batches(1))


@pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="a GPU is here"
)
def test_xla_on_a_cpu():
    with pytest.raises(ValueError, match="10 to 40 times slower"):
        km.preflight(make(jit_compile=True))


def test_one_device_may_do_all_the_rest():
    optimizer = keras.optimizers.SGD(
        gradient_accumulation_steps=2, use_ema=True, ema_overwrite_frequency=2
    )
    km.preflight(make(optimizer=optimizer, steps_per_execution=2), batches(8, False))


def test_what_works_on_two_replicas(two_replicas):
    with two_replicas.scope():
        model = make()
    km.preflight(model, batches(8))
    km.preflight(model, batches(8, full=False).repeat())
    model.fit(batches(8), epochs=1, verbose=0)


def test_the_sizes_of_a_run(two_replicas):
    found = km.check_scale(1000, "slim_v2", strategy=two_replicas)
    assert found == {
        "replicas": 2,
        "workers": 1,
        "batch_size": 192,
        "learning_rate": 0.09,
        "asynchronous": False,
        "steps_per_epoch": 5,
        "problems": [],
    }
    (problem,) = km.check_scale(100, strategy=two_replicas)["problems"]
    assert "at most 50" in problem
    (problem,) = km.check_scale(9, strategy="none", batch_size=1)["problems"]
    assert "batch norm learns nothing" in problem


def test_a_short_validation_batch(two_replicas):
    """It failed in a convolution, in README's own flow."""
    with two_replicas.scope():
        model = make()
    km.preflight(model, batches(8), batches(8).take(1))
    km.preflight(model, batches(8), batches(7, full=False))  # 7 and 2
    with pytest.raises(km.UsageError, match="validation batch.*pad_evaluation"):
        km.preflight(model, batches(8), batches(8, full=False))  # 8 and 1
    with pytest.raises(km.UsageError, match="validation batch.*pad_evaluation"):
        km.preflight(model, None, batches(1))
    km.preflight(make(), batches(8), batches(8, full=False))


def test_a_model_without_optimizer():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    with pytest.raises(km.UsageError, match="must be compiled"):
        km.preflight(model)
    with pytest.raises(km.UsageError, match="must be a keras.Model; got 3"):
        km.preflight(3)


@pytest.mark.parametrize("wrong", [True, 3, "x", b"1", object(), np.float32(1), len])
def test_what_fit_does_not_take(wrong):
    with pytest.raises(km.UsageError, match="batches must be what fit takes"):
        km.preflight(make(), wrong)
    with pytest.raises(km.UsageError, match="validation must be what fit takes"):
        km.preflight(make(), None, wrong)


def test_arrays_and_generators_are_for_fit_to_look_at():
    images, labels = np.zeros((8, 4)), np.zeros(8)
    km.preflight(make(), images, (images, labels))
    km.preflight(make(), ((x, y) for x, y in [(images, labels)]))
