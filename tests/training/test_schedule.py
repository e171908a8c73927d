import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mobilenets as km
from keras_mobilenets.training.compiling import make_schedule
from keras_mobilenets.training.schedule import ExponentialDecay


@pytest.mark.parametrize("decay_steps", [1, 3, 33363])
def test_staircase_at_before_and_after_every_boundary(decay_steps):
    schedule = ExponentialDecay(0.045, decay_steps, 0.98)
    for drop in (1, 2, 165, 500):
        boundary = drop * decay_steps
        after = float(schedule(boundary))
        assert after == pytest.approx(0.045 * 0.98**drop, rel=2e-7)
        before = float(schedule(boundary - 1))
        expected = 0.045 * 0.98 ** ((boundary - 1) // decay_steps)
        assert before == pytest.approx(expected, rel=2e-7)
        assert after / before == pytest.approx(0.98, rel=1e-6)
    assert float(schedule(0)) == pytest.approx(0.045, rel=1e-7)


@pytest.mark.parametrize("staircase", [True, False])
def test_equal_to_tensorflow_1(staircase):
    schedule = ExponentialDecay(0.045, 7, 0.94, staircase=staircase)
    for step in (0, 1, 6, 7, 8, 13, 14, 1000):
        reference = tf.compat.v1.train.exponential_decay(
            0.045, step, 7, 0.94, staircase=staircase
        )
        assert float(schedule(step)) == pytest.approx(float(reference()), rel=1e-5)


def test_no_boundary_is_missed_beyond_the_whole_numbers_of_float32():
    decay_steps = 2**24 + 1
    schedule = ExponentialDecay(1.0, decay_steps, 0.5)
    assert float(schedule(tf.constant(decay_steps - 1, tf.int64))) == 1.0
    assert float(schedule(tf.constant(decay_steps, tf.int64))) == 0.5


def test_warmup_is_linear_and_meets_the_decay():
    schedule = ExponentialDecay(0.4, 10, 0.5, warmup_steps=25)
    rates = [float(schedule(step)) for step in range(31)]
    top = 0.4 * 0.5**2
    np.testing.assert_allclose(rates[:25], np.arange(25) / 25 * top, rtol=1e-6)
    np.testing.assert_allclose(rates[25:30], top, rtol=1e-6)
    assert rates[30] == pytest.approx(top / 2, rel=1e-6)


def test_recipes_count_in_epochs():
    slim = make_schedule(km.recipes["slim_v2"], steps_per_epoch=13345)
    assert slim.decay_steps == 33362  # slim: int(13345.5 * 2.5) = 33363 on 1,281,167
    assert slim.learning_rate == 0.045
    slim = make_schedule(km.recipes["slim_v2"], 13345, learning_rate=0.36)
    assert slim.learning_rate == 0.36
    paper = make_schedule(km.recipes["paper_v2"], steps_per_epoch=13345)
    assert (paper.decay_steps, paper.learning_rate) == (13345, 0.045)
    garden = make_schedule(km.recipes["model_garden_v2"], steps_per_epoch=10)
    assert (garden.warmup_steps, garden.decay_steps) == (50, 25)


def test_serialisable():
    schedule = ExponentialDecay(0.045, 7, 0.94, staircase=False, warmup_steps=3)
    config = keras.saving.serialize_keras_object(schedule)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == schedule.get_config()
    assert float(again(11)) == float(schedule(11))


def test_decay_steps_must_be_positive():
    with pytest.raises(ValueError, match="decay_steps must .* at least 1; got 0"):
        ExponentialDecay(0.1, 0, 0.9)
