"""One small run, for the tests of what is done with a finished one."""

import pytest

import keras_mobilenets as km
from keras_mobilenets.architecture.tables import NETWORKS

WHOLE = NETWORKS["mobilenet_v1"]  # which the first module to ask may have few blocks of


@pytest.fixture(scope="session")
def run(tmp_path_factory):
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
