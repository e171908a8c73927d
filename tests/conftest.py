"""Before TensorFlow starts: quiet, and two CPU devices so that strategies are real."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest
import tensorflow as tf

from keras_mobilenets.architecture.tables import NETWORKS
from keras_mobilenets.training.strategies import make_strategy

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)


@pytest.fixture(scope="session", autouse=True)
def disk_is_not_waited_for():
    """Tests kill processes, not the power, and most of writing a file is waiting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


# One for all tests: strategies number their collectives from the same start, and
# TensorFlow remembers the shape of each number for as long as the process lives.
@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.MirroredStrategy:
    # The one of the process: the collectives of a second would be numbered as its own.
    return make_strategy("mirrored", cpu_replicas=2)


@pytest.fixture(
    params=["policy", pytest.param("floatx and policy", marks=pytest.mark.slow)]
)
def float64(request):
    """Everything in float64 for one test, in either way that Keras offers."""
    if request.param != "policy":
        keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="module")
def few_blocks():
    """V1 with two blocks, for tests of what is around it: tracing is what costs."""
    whole = NETWORKS["mobilenet_v1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "mobilenet_v1", whole._replace(rows=whole.rows[:3]))
        yield
