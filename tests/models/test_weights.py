import contextlib

import h5py
import keras
import numpy as np
import pytest
from keras.src.applications import mobilenet, mobilenet_v2
from keras.src.legacy.saving import legacy_h5_format

import keras_mobilenets as km
from keras_mobilenets.models import copy_weights

SMALL = {"alpha": 0.25, "resolution": 32, "classes": 3, "shallow": True}


@pytest.fixture(scope="module")
def model():
    return km.build("mobilenet_v1", **SMALL)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_file_of_the_same_network_loads(model, tmp_path, suffix):
    file = tmp_path / f"saved{suffix}"
    (model.save if suffix == ".keras" else model.save_weights)(file)
    again = km.build("mobilenet_v1", weights=file, **SMALL)
    for ours, saved in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, saved)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize(
    "other",
    [
        {"alpha": 0.5},
        {"classes": 4},
        {"shallow": False},
        {"name": "mobilenet_v2", "shallow": None},
    ],
    ids=str,
)
def test_a_file_of_another_network_is_refused(model, tmp_path, suffix, other):
    file = tmp_path / f"saved{suffix}"
    (model.save if suffix == ".keras" else model.save_weights)(file)
    network = {"name": "mobilenet_v1", **SMALL, **other}
    network = {k: v for k, v in network.items() if v is not None}
    with pytest.raises(ValueError, match="weights file .* does not fit"):
        km.build(weights=str(file), **network)


def test_a_damaged_file_is_refused(tmp_path):
    for name in ("a.keras", "a.weights.h5"):
        (tmp_path / name).write_bytes(b"not a model")
        with pytest.raises(ValueError, match="does not fit"):
            km.build("mobilenet_v1", weights=tmp_path / name, **SMALL)
    (tmp_path / "a.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="must be a .keras or .weights.h5 file"):
        km.build("mobilenet_v1", weights=tmp_path / "a.pth", **SMALL)


def test_copying_is_all_or_nothing(model):
    before = model.get_weights()
    wrong = [*[w + 1 for w in before[:-1]], np.zeros(99)]
    with pytest.raises(ValueError, match=r"logits/bias must have shape \(3,\)"):
        copy_weights(model, wrong)
    with pytest.raises(ValueError, match="another architecture"):
        copy_weights(model, before[:-1])
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.fixture
def keras_cache(tmp_path, monkeypatch):
    """The folder that Keras' downloads come from: the transport is mocked."""

    def get_file(name, origin, cache_subdir):
        file = tmp_path / name
        if not file.exists():
            raise Exception(f"URL fetch failure on {origin}")
        return str(file)

    for module in (mobilenet, mobilenet_v2):
        monkeypatch.setattr(module.file_utils, "get_file", get_file)
    return tmp_path


def test_imagenet_weights(keras_cache):
    theirs = keras.applications.MobileNet(
        input_shape=(128, 128, 3), alpha=0.25, weights=None
    )
    with h5py.File(keras_cache / "mobilenet_2_5_128_tf.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, theirs)
    ours = km.build("mobilenet_v1", alpha=0.25, resolution=128, weights="imagenet")
    for our, their in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_array_equal(np.ravel(our), np.ravel(their))


def test_imagenet_weights_that_cannot_be_had(keras_cache):
    with pytest.raises(ValueError, match="could not be downloaded"):
        km.build("mobilenet_v2", alpha=0.35, resolution=96, weights="imagenet")


@pytest.mark.parametrize("value", [float("nan"), float("-inf")], ids=str)
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_weights_that_are_no_numbers_are_refused(model, tmp_path, value, suffix):
    """They were taken, and predictions were NaN."""
    broken = km.build("mobilenet_v1", **SMALL)
    broken.get_layer("stem_bn").gamma.assign(np.full(8, value))
    file = tmp_path / f"saved{suffix}"
    (broken.save if suffix == ".keras" else broken.save_weights)(file)
    with pytest.raises(km.UsageError, match="stem_bn/gamma must be finite"):
        km.build("mobilenet_v1", weights=file, **SMALL)
    values = [w.astype("O") for w in model.get_weights()]
    values[0].flat[0] = "x"
    with pytest.raises(km.UsageError, match="stem/kernel must be finite"):
        copy_weights(model, values)


def test_a_damaged_hdf5_file_is_refused(model, tmp_path):
    file = tmp_path / "saved.weights.h5"
    model.save_weights(file)
    content = bytearray(file.read_bytes())
    for start in range(0, 1024, 128):
        damaged = content.copy()
        damaged[start : start + 64] = b"\xff" * 64
        file.write_bytes(damaged)
        with contextlib.suppress(km.UsageError):  # where the damage matters
            km.build("mobilenet_v1", weights=file, **SMALL)
