"""What follows from the number of replicas."""

import tensorflow as tf

from keras_mobilenets.recipe import recipes
from keras_mobilenets.training.scale import Scale, make_scale


def test_sizes_follow_from_the_replicas(two_replicas):
    slim = recipes["slim_v2"]
    scale = make_scale(slim, two_replicas)
    assert scale == Scale(2, 1, 192, 0.09)
    assert str(scale) == "2 replicas x 96 = 192 images a step, rate 0.09"
    fixed = slim.replace(scale_learning_rate=False)
    assert make_scale(fixed, two_replicas).learning_rate == 0.045
    own = slim.replace(asynchronous_workers=1)
    assert make_scale(own, two_replicas).learning_rate == 0.09  # nothing is stale
    alone = make_scale(slim, tf.distribute.get_strategy())
    assert str(alone) == "96 images a step, rate 0.045"
