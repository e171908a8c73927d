"""The digits as a TFDS dataset."""

import importlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from keras_mobilenets.data import digits
from keras_mobilenets.data.digits import Digits, prepared_digits

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    prepared_digits(directory)
    return directory


def examples(builder, split):
    return list(tfds.as_numpy(builder.as_dataset(split=split)))


def test_every_digit_is_in_one_split_with_its_label(data_dir):
    builder = prepared_digits(data_dir)
    data = load_digits()
    expected = sorted(
        (np.rint(image * 255 / 16).astype(np.uint8).tobytes(), int(label))
        for image, label in zip(data.images, data.target, strict=True)
    )
    found = sorted(
        (example["image"].tobytes(), int(example["label"]))
        for split in SPLITS
        for example in examples(builder, split)
    )
    assert found == expected
    assert max(max(image) for image, _ in found) == 255


def test_splits_are_stratified_and_have_their_sizes(data_dir):
    builder = prepared_digits(data_dir)
    sizes = {split: builder.info.splits[split].num_examples for split in SPLITS}
    assert sizes == {"train": 1437, "validation": 180, "test": 180}
    for split, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        labels = [int(example["label"]) for example in examples(builder, split)]
        counts = np.bincount(labels, minlength=10)
        everything = np.bincount(load_digits().target)
        np.testing.assert_allclose(counts / everything, share, atol=0.006)


def test_splits_are_the_same_in_every_preparation(data_dir, tmp_path):
    other = prepared_digits(tmp_path)
    for split in SPLITS:
        first = examples(prepared_digits(data_dir), split)
        again = examples(other, split)
        assert [e["image"].tobytes() for e in first] == [
            e["image"].tobytes() for e in again
        ]


def test_it_is_a_tfds_dataset(data_dir):
    builder = tfds.builder("digits", data_dir=data_dir)
    assert builder.is_prepared()
    assert builder.info.features["image"].shape == (8, 8, 1)
    assert builder.info.features["label"].names == list("0123456789")
    sliced = builder.as_dataset(split="train[:10%]", as_supervised=True)
    assert len(sliced) == 144


def test_preparing_is_quiet_and_done_once(tmp_path, capfd, monkeypatch):
    prepared_digits(tmp_path)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "Generating" not in captured.err
    assert "Variant folder" not in captured.err

    def again(self):
        raise AssertionError("prepared twice")

    monkeypatch.setattr(Digits, "download_and_prepare", again)
    assert prepared_digits(tmp_path).is_prepared()


def test_another_process_may_win_the_race(tmp_path, monkeypatch):
    prepare = Digits.download_and_prepare

    def beaten(self):
        prepare(Digits(data_dir=tmp_path))
        raise FileExistsError("the directory is there")

    monkeypatch.setattr(Digits, "download_and_prepare", beaten)
    builder = prepared_digits(tmp_path)
    assert len(examples(builder, "test")) == 180


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(ValueError, match=r"data_dir must be a folder .*file"):
        prepared_digits(blocked)


def test_importing_again_does_not_clash():
    importlib.reload(digits)
    assert "digits" not in tfds.list_builders(with_community_datasets=False)
