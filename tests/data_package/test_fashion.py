"""fashion_mnist from idx files, as Debian's package has them."""

import gzip
import struct

import numpy as np
import pytest
import tensorflow_datasets as tfds

from keras_mobilenets.data import fashion, load_data

COUNTS = {"train": 40, "t10k": 7}


def idx(values):
    head = struct.pack(">I", 0x800 + values.ndim)
    return gzip.compress(
        head + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    )


def pictures(start):
    random = np.random.default_rng(len(start))
    images = random.integers(0, 256, (COUNTS[start], 28, 28), dtype=np.uint8)
    return images, np.arange(COUNTS[start], dtype=np.uint8) % 10


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A package of a few images."""
    folder = tmp_path / "package"
    folder.mkdir()
    for start in COUNTS:
        images, labels = pictures(start)
        (folder / f"{start}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (folder / f"{start}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    monkeypatch.setattr(fashion, "FOLDER", folder)
    return folder


def load(tmp_path):
    return load_data(
        "fashion_mnist", resolution=32, batch_size=4, data_dir=tmp_path / "tfds"
    )


def test_it_is_prepared_from_the_package(folder, tmp_path, capfd):
    data = load(tmp_path)
    assert "Downloading" not in capfd.readouterr().out
    assert data.classes[0] == "T-shirt/top"
    assert len(data.classes) == 10
    assert (data.num_train, data.num_validation, data.num_test) == (36, 4, 7)
    images, labels = pictures("t10k")
    read = tfds.builder("fashion_mnist", data_dir=tmp_path / "tfds").as_dataset("test")
    pairs = [(e["image"][..., 0], e["label"]) for e in read.as_numpy_iterator()]
    assert sorted((i.tobytes(), int(n)) for i, n in pairs) == sorted(
        (i.tobytes(), int(n)) for i, n in zip(images, labels, strict=True)
    )
    for batches, count in ((data.train, 36), (data.test, 7)):
        seen = [n for _, labels in batches.as_numpy_iterator() for n in labels]
        assert len(seen) == count


def test_prepared_once_it_needs_the_package_no_more(folder, tmp_path):
    load(tmp_path)
    for file in folder.iterdir():
        file.unlink()
    assert load(tmp_path).num_test == 7


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train-images-idx3-ubyte.gz", b"no gzip"),
        ("train-images-idx3-ubyte.gz", gzip.compress(b"")),
        ("train-images-idx3-ubyte.gz", gzip.compress(bytes(100))),
        ("t10k-labels-idx1-ubyte.gz", idx(np.zeros(7, np.uint8))[:-9]),
        ("t10k-labels-idx1-ubyte.gz", idx(np.zeros([7, 1, 1], np.uint8))),
        ("t10k-labels-idx1-ubyte.gz", idx(np.zeros(8, np.uint8))),
    ],
    # Their own would hold gzip's bytes, and so the time.
    ids=["no gzip", "empty", "zeros", "cut off", "images for labels", "too many"],
)
def test_a_damaged_package_is_named(folder, tmp_path, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match="^'.*install dataset-fashion-mnist again"):
        load(tmp_path)


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion, "FOLDER", tmp_path / "nowhere")
    assert not fashion.has_fashion_mnist()
