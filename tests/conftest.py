"""Before TensorFlow starts: quiet, and two CPU devices so that strategies are real."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest
import tensorflow as tf

import keras_mobilenets as km
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


WHOLE = NETWORKS["mobilenet_v1"]  # which the first module to ask may have few blocks of


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """One small run, for the tests of what is done with a finished one."""
    folder = tmp_path_factory.mktemp("inference")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "mobilenet_v1", WHOLE)
        return km.train(
            "mobilenet_v1",
            alpha=0.25,
            resolution=32,
            shallow=True,
            epochs=3,
            decay_epochs=3,
            label_smoothing=0.1,
            exif_orientation=False,  # what looks for it takes long to trace
            workdir=folder / "run",
            data_dir=folder / "data",
            verbose=False,
        )


@pytest.fixture(scope="session")
def splits(run):
    return km.load_data(
        "digits", resolution=32, batch_size=50, data_dir=run.report["data_dir"]
    )
