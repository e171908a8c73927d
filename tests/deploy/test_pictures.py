"""Images to calibrate with and to prove on."""

import numpy as np
import pytest
import tensorflow as tf

import keras_mobilenets as km
from keras_mobilenets.deploy.pictures import check_calibration, take_pictures

SHAPE = (32, 32, 3)


@pytest.fixture(scope="module")
def splits():
    return km.load_data("digits", resolution=32, recipe="slim_v2", batch_size=60)


def test_of_splits(splits):
    """Training images from everywhere in the split; the whole test split, labelled."""
    pictures = take_pictures(splits, SHAPE)
    assert pictures.calibration.shape == (128, *SHAPE)
    train = np.concatenate([x for x, _ in splits.train_once.as_numpy_iterator()])
    places = [np.abs(train - image).sum(axis=(1, 2, 3)).argmin() for image in (
        pictures.calibration[0], pictures.calibration[-1])]  # fmt: skip
    np.testing.assert_array_equal(train[places], pictures.calibration[[0, -1]])
    images, labels = zip(*splits.test.as_numpy_iterator(), strict=True)
    np.testing.assert_array_equal(pictures.proof, np.concatenate(images))
    np.testing.assert_array_equal(pictures.labels, np.concatenate(labels))
    assert pictures.recipe is splits.recipe
    assert pictures.classes == splits.classes
    assert pictures.source == "digits (test split)"


def test_labels_count_the_background(splits):
    assert splits.classes[0] == "background"
    labels = np.concatenate([y for _, y in splits.test.as_numpy_iterator()])
    assert splits.labels("test", [3, 0, 100]) == labels[[3, 0, 100]].tolist()
    assert labels.min() == 1


def dark(value=0.4):
    return np.linspace(-1, -1 + 2 * value, 40 * 32 * 32 * 3, dtype="float32").reshape(
        40, *SHAPE
    )


def test_dark_images_of_our_own_are_warned_about():
    images = ((dark() + 1) * 127.5).astype("uint8")
    labels = np.arange(40) % 2
    splits = km.load_data(
        {"train": (images, labels), "test": (images, labels)}, resolution=32
    )
    with pytest.warns(UserWarning, match="from -1 to -0.2 only"):
        check_calibration(take_pictures(splits, SHAPE), "int8")
    with pytest.raises(km.UsageError, match="from -1 to -0.2 only"):
        check_calibration(take_pictures(dark(), SHAPE), "int8")
    check_calibration(take_pictures(dark(0.6), SHAPE), "int8")


def test_of_a_dataset():
    x = np.random.default_rng(0).uniform(-1, 1, (300, *SHAPE)).astype("float32")
    y = np.arange(300)
    with_labels = take_pictures(
        tf.data.Dataset.from_tensor_slices((x, y)).batch(50), SHAPE
    )
    np.testing.assert_array_equal(with_labels.calibration, x[:128])
    np.testing.assert_array_equal(with_labels.labels, y[:128])
    assert with_labels.source == "the 128 of calibration"
    without = take_pictures(tf.data.Dataset.from_tensor_slices(x).batch(50), SHAPE)
    assert without.labels is None
    one_hot = take_pictures([(x, np.eye(300))], SHAPE)
    assert one_hot.labels is None


@pytest.mark.parametrize("wrong", [3, {"train": 1}, b"digits", [["a", "b"]]])
def test_what_is_no_data(wrong):
    with pytest.raises(km.UsageError, match="calibration must be Splits"):
        take_pictures(wrong, SHAPE)


def test_pictures_that_are_made_up():
    one, two = (take_pictures(None, (24, 40, 3)) for _ in range(2))
    np.testing.assert_array_equal(one.proof, two.proof)
    assert one.proof.shape == (32, 24, 40, 3)
    assert np.abs(one.proof).max() == 1
    assert np.abs(np.diff(one.proof, axis=1)).mean() < 0.2  # smooth
    assert one.source == "32 made up"
    with pytest.raises(km.UsageError, match="must be given for int8"):
        check_calibration(one, "int8")
