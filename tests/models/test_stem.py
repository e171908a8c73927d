import keras
import numpy as np
import pytest

import keras_mobilenets as km
from keras_mobilenets.models.stem import fit_stem
from tests.models.test_builder import randomize

NETWORKS = ["mobilenet_v1", "mobilenet_v2"]


def networks(name: str, channels: int) -> tuple[keras.Model, keras.Model]:
    """One trained on RGB, and its twin for images of other channels."""
    network = {"alpha": 0.35, "resolution": (32, 48), "classes": 5, "dropout": 0.0}
    rgb = km.build(name, **network)
    randomize(rgb)
    stem, *rest = rgb.get_weights()
    twin = km.build(name, channels=channels, **network)
    twin.set_weights([fit_stem(stem, channels)[0], *rest])
    return rgb, twin


@pytest.mark.parametrize("name", NETWORKS)
def test_grey_images_give_the_outputs_of_three_equal_channels(name):
    rgb, grey = networks(name, 1)
    x = np.random.default_rng(1).uniform(-1, 1, (8, 32, 48, 1)).astype("float32")
    expected = np.array(rgb(np.repeat(x, 3, axis=-1), training=True))
    assert expected.std(axis=0).mean() > 1e-3
    np.testing.assert_allclose(grey(x, training=True), expected, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_alpha_changes_nothing_until_it_is_trained(name):
    rgb, rgba = networks(name, 4)
    x = np.random.default_rng(1).uniform(-1, 1, (8, 32, 48, 4)).astype("float32")
    expected = np.array(rgb(x[..., :3], training=True))
    assert expected.std(axis=0).mean() > 1e-3
    np.testing.assert_allclose(rgba(x, training=True), expected, atol=1e-5)


def test_what_was_done_is_said():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 8)).astype("float32")
    same, notes = fit_stem(kernel, 3)
    assert same is kernel
    assert notes == []
    summed, notes = fit_stem(kernel, 1)
    assert summed.shape == (3, 3, 1, 8)
    assert summed.dtype == np.float32
    assert "summed over red, green and blue" in notes[0]
    padded, notes = fit_stem(kernel, 4)
    assert padded.shape == (3, 3, 4, 8)
    assert not padded[:, :, 3].any()
    assert "zeros for alpha" in notes[0]


@pytest.mark.parametrize(
    ("shape", "channels"),
    [((3, 3, 1, 8), 3), ((3, 3, 4, 8), 3), ((3, 3, 1, 8), 4), ((3, 8), 1)],
)
def test_other_stems_are_refused(shape, channels):
    with pytest.raises(ValueError, match="first convolution has shape") as error:
        fit_stem(np.zeros(shape), channels)
    assert str(shape) in str(error.value)
