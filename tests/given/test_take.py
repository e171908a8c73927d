"""Data given as objects: what is taken, what is refused, and by which it is known."""

import pickle

import numpy as np
import pytest
import tensorflow as tf

from keras_mobilenets.errors import UsageError
from keras_mobilenets.given import Given, take

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
PAIRS = [("/a/1.png", "cat"), ("/a/2.png", "dog")]


def dataset(images=IMAGES, labels=(0, 1, 1)):
    return tf.data.Dataset.from_tensor_slices((images, list(labels)))


def test_names_and_paths_stay_what_they_are(tmp_path):
    for value in ("digits", "photos", tmp_path):
        assert take(value) is value


def test_pairs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    taken = take((path, label) for path, label in [("a.png", 2), (tmp_path / "b", 10)])
    assert taken.labels == {"train": [2, 10]}
    assert taken.items == {"train": [str(tmp_path / "a.png"), str(tmp_path / "b")]}
    assert str(taken).startswith("list:")
    assert take(taken) is taken
    assert take(zip(*zip(*PAIRS, strict=True), strict=True)) == take(set(PAIRS))
    assert take([list(pair) for pair in PAIRS]) == take(PAIRS)


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1, 1],
        np.array([0, 1, 1], np.uint8),
        np.array([[0], [1], [1]], np.int64),  # as keras.datasets.cifar10
        np.array([0, 1, 1], object),
    ],
    ids=["list", "uint8", "column", "objects"],
)
def test_labels_of_arrays(labels):
    taken = take((IMAGES, labels))
    assert taken.labels == {"train": [0, 1, 1]}
    assert taken.items["train"] is IMAGES, "not copied"
    assert taken == take((IMAGES, [0, 1, 1]))


SEVERAL = [(0, 2), (), (0, 1, 2)]
ROWS = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    "value",
    [
        (IMAGES, ROWS),
        (IMAGES, ROWS.astype(bool)),
        (IMAGES, [[2, 0], set(), (1, 0, 2)]),
        dataset(labels=ROWS),
        dataset(labels=ROWS.astype(bool)),
    ],
    ids=["matrix", "truths", "lists", "dataset", "dataset of truths"],
)
def test_several_labels_an_image(value):
    taken = take(value)
    assert taken.labels == {"train": SEVERAL}
    assert taken.multi_label
    assert take((IMAGES, [0, 1, 1])).multi_label is False


def test_several_labels_of_pairs():
    paths = ["/a", "/b", "/c"]
    taken = take(zip(paths, [("dog", "cat"), [], {"cat"}], strict=True))
    assert taken.labels == {"train": [("cat", "dog"), (), ("cat",)]}
    assert taken.multi_label
    assert taken == take(zip(paths, [{"cat", "dog"}, (), ["cat"]], strict=True))
    assert str(taken) != str(take(zip(paths, [["cat"], [], ["cat"]], strict=True)))


def test_a_dataset_is_read_once():
    reads = []

    def examples():
        reads.append(None)
        for number in range(3):
            yield np.full((number + 1, 2, 3), number, np.uint8), b"ab"[: number + 1]

    signature = (tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([], tf.string))
    taken = take(tf.data.Dataset.from_generator(examples, output_signature=signature))
    assert len(reads) == 1
    assert taken.labels == {"train": ["a", "ab", "ab"]}
    assert [image.shape for image in taken.items["train"]] == [
        (1, 2, 3), (2, 2, 3), (3, 2, 3),
    ]  # fmt: skip


def test_splits():
    taken = take({"test": (IMAGES, [1, 1, 0]), "train": (IMAGES, [0, 1, 1])})
    assert list(taken.labels) == ["train", "test"]
    assert taken.labels["test"] == [1, 1, 0]


OTHER = IMAGES.copy()
OTHER[2, 3, 4] += 1
DIFFERENT = {
    "arrays": (IMAGES, [0, 1, 1]),
    "a pixel": (OTHER, [0, 1, 1]),
    "a label": (IMAGES, [0, 1, 0]),
    "text": (IMAGES, ["0", "1", "1"]),
    "shape": (IMAGES.reshape(3, 5, 4), [0, 1, 1]),
    "channels": (IMAGES[..., np.newaxis], [0, 1, 1]),
    "order": (IMAGES[::-1], [1, 1, 0]),
    "split": {"train": (IMAGES, [0, 1, 1]), "test": (IMAGES, [0, 1, 1])},
    "list": PAIRS,
    "another path": [*PAIRS[:1], ("/a/3.png", "dog")],
    "fewer": PAIRS[:1],
}


def test_what_is_different_is_known_by_another_name():
    names = [str(take(value)) for value in DIFFERENT.values()]
    assert len(set(names)) == len(names)
    assert str(take(dataset())) == str(take(dataset()))
    assert str(take((IMAGES, [0, 1, 1]))) == str(take((IMAGES.copy(), [0, 1, 1])))
    taken = take((IMAGES, [0, 1, 1]))
    again = pickle.loads(pickle.dumps(taken))  # as a search sends it to its trials
    assert isinstance(again, Given)
    assert again == taken
    np.testing.assert_array_equal(again.items["train"], IMAGES)


class Table:
    """As far as it is looked at, a data frame."""

    columns, shape, dtypes = ["path", "label"], (2, 2), None


def endless():
    while True:
        yield "/a.png", "cat"


ONE_HOT = np.eye(3, dtype=np.int64)
BAD = {
    "none": (None, r"source must be 'digits', a TFDS name.*got None"),
    "nothing": ("", "source must be 'digits'"),
    "number": (7, "got 7"),
    "no pairs": ([], r"at least one \(path, label\); got none"),
    "no items": ({}, "got a mapping of \\[\\]"),
    "other keys": ({"image": 1, "label": 2}, r"mapping of \['image', 'label'\]"),
    "no train": ({"test": PAIRS}, r"mapping of \['test'\]"),
    "folders by split": ({"train": "a/", "test": "b/"}, "got 'a/' for a split"),
    "two forms": ({"train": PAIRS, "test": (IMAGES, [0, 1, 1])}, "arrays and list"),
    "one pair": (("a.jpg", 1), r"one pair goes in a list, \[\(path, label\)\]"),
    "paths": (["a.jpg", "b.jpg"], r"source\[0\] must be a pair.*got 'a.jpg'"),
    "paths and labels": ((["a", "b"], ["x", "y"]), r"give list\(zip\(paths, labels"),
    "triples": ([("a", "b", "c")], r"pair \(path, label\); got \('a', 'b', 'c'\)"),
    "label first": ([(1, "a.jpg")], "with the path of an image file"),
    "no path": ([("", "cat")], "with the path of an image file"),
    "bytes": ([(b"a.jpg", "cat")], "with the path of an image file"),
    "no label": ([("a.jpg", None)], r"label of source\[0\].*got None"),
    "blank label": ([("a.jpg", " ")], "must be text, or a whole number"),
    "nan": ([("a.jpg", float("nan"))], "got nan"),
    "minus one": ([("a.jpg", -1)], "at least 0; got -1"),
    "truth": ([("a.jpg", True)], r"got True: give str\(label\)"),
    "text and numbers": ([("a.jpg", "1"), ("b.jpg", 1)], "all text or all whole"),
    "table": (Table(), r"got a table: give list\(zip\(table\['path'\]"),
    "images alone": (IMAGES, r"images without labels: give \(images, labels\)"),
    "three arrays": ((IMAGES, [0, 1, 1], [1, 1, 1]), "two arrays.*got 3"),
    "keras.datasets": (
        ((IMAGES, ONE_HOT[0]), (IMAGES, ONE_HOT[0])), "{'train': .images, labels",
    ),
    "pairs of arrays": ([(IMAGES[0], 0), (IMAGES[1], 1)], "arrays inside pairs"),
    "tensors": ((tf.constant(IMAGES), [0, 1, 1]), r"np.asarray\(images\)"),
    "floats": ((IMAGES / 255, [0, 1, 1]), r"uint8, 0..255; got float64.*\* 255"),
    "int64": ((IMAGES.astype(int), [0, 1, 1]), r"got int64: give images.astype"),
    "objects": ((np.array([None] * 3), [0, 1, 1]), "array of objects"),
    "paths as array": ((np.array(["a", "b"]), [0, 1]), "an array of text"),
    "flat": ((IMAGES.reshape(3, 20), [0, 1, 1]), r"the shape \(3, 20\): use images.r"),
    "channels first": (
        (np.zeros([2, 3, 8, 8], np.uint8), [0, 1]), r"channels come last, np.moveaxis",
    ),
    "two channels": ((np.zeros([2, 8, 8, 2], np.uint8), [0, 1]), "1, 3 or 4 channels"),
    "no pixels": ((np.zeros([2, 0, 8], np.uint8), [0, 1]), r"the shape \(0, 8\)"),
    "no images": ((IMAGES[:0], []), "at least one image; got none"),
    "lengths": ((IMAGES, [0, 1]), "got 3 images and 2 labels"),
    "one-hot list": ((IMAGES, ONE_HOT.tolist()), "vectors of 0 and 1 go as arrays"),
    "float rows": ((IMAGES, ONE_HOT / 2), r"got float64: .*\(labels > 0.5\) if not"),
    "counts": ((IMAGES, ONE_HOT * 2), r"must be 0 or 1.*got 2 among the shape \(3, 3"),
    "text rows": ((IMAGES, ONE_HOT.astype(str)), "whole numbers 0 and 1.*got <U"),
    "a column without images": (
        (IMAGES, np.eye(3, 5, dtype=int)), r"none for column 3 and 1 more: leave",
    ),
    "other columns": (
        {"train": (IMAGES, ONE_HOT), "test": (IMAGES[:2], ONE_HOT[:2, :2])},
        "as many columns in every split; got 3 in train, 2 in test",
    ),
    "three axes": ((IMAGES, np.zeros([3, 2, 2], int)), r"the shape \(3, 2, 2\)"),
    "one and several": (
        [("a.jpg", "cat"), ("b.jpg", ["cat"])], r"got both: give \[label\] for one",
    ),
    "twice": ([("a.jpg", ["cat", "cat"])], r"source\[0\] must differ; got 'cat' more"),
    "several of two kinds": ([("a.jpg", ["cat", 1])], "all text or all whole numbers"),
    "of two kinds": ([("a.jpg", ["cat"]), ("b.jpg", [1])], "all text or all whole"),
    "no label among several": ([("a.jpg", ["cat", None])], "got None"),
    "joined": ([("a.jpg", ["cat|dog", "cow"])], "must not hold '|'"),
    "float labels": ((IMAGES, np.zeros(3)), r"got float64: give labels.astype\(int\)"),
    "truths": ((IMAGES, np.ones(3, bool)), r"got bool: give labels.astype\(int\)"),
    "byte labels": ((IMAGES, np.array([b"a"] * 3)), r"labels.astype\(str\)"),
    "labels as a number": ((IMAGES, 3), "labels of source must be an array or a list"),
    "empty label": ((IMAGES, ["a", "", "b"]), "image 1 of source.*got ''"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_data_is_refused_with_the_fix(case):
    value, message = BAD[case]
    with pytest.raises(UsageError, match=message):
        take(value)


def test_an_iterator_without_end(monkeypatch):
    monkeypatch.setattr("keras_mobilenets.given.examples.MOST_PAIRS", 1000)
    with pytest.raises(UsageError, match="must end; got more than 1,000 pairs"):
        take(endless())


LONGER = tf.data.Dataset.range(2).map(
    lambda n: (tf.zeros([4, 4], tf.uint8), tf.ones([n + 1], tf.int64))
)
RAGGED = tf.data.Dataset.from_tensors((tf.ragged.constant([[1]], tf.uint8), 0))
BAD_DATASETS = {
    "dicts": (dataset().map(lambda x, y: {"x": x, "y": y}), r"dicts of x, y: map\("),
    "images alone": (dataset().map(lambda x, y: x), r"of \(image, label\); got Tensor"),
    "weights": (dataset().map(lambda x, y: (x, y, 1.0)), r"\(image, label\); got \("),
    "nested": (dataset().map(lambda x, y: ((x, x), y)), r"\(image, label\); got \("),
    "batches": (dataset(IMAGES[..., None]).batch(2), r"unbatch\(\) takes them apart"),
    "grey batches": (dataset().batch(2), r"unbatch\(\) takes them apart"),
    "floats": (dataset(IMAGES / 255), r"uint8, 0..255; got float64"),
    "encoded": (dataset([b"a", b"b", b"c"]), "encoded images.*decode_image"),
    "float rows": (dataset(labels=ONE_HOT / 1), "float64 of the shape .3,.*tf.cast"),
    "counts": (dataset(labels=ONE_HOT * 3), "example 0 of source must be 0 or 1"),
    "rows of text": (dataset(labels=ONE_HOT.astype(str)), "got string of the shape"),
    "matrices": (dataset(labels=ONE_HOT[:, None]), r"of the shape \(1, 3\)"),
    "longer rows": (LONGER, "example 1 of source must be as many as .* 1; got 2"),
    "float labels": (dataset(labels=[0.0, 1, 1]), r"got float32: tf.cast"),
    "truths": (dataset(labels=[True, False, True]), "got bool"),
    "unlabelled": (dataset(labels=[0, -1, 1]), "example 1 of source.*got -1"),
    "no text": (dataset(labels=[b"a", b"\xff", b"b"]), "must be UTF-8"),
    "endless": (dataset().repeat(), r"endless dataset: take\(n\)"),
    "endless in secret": (
        dataset().repeat().filter(lambda *_: True), r"memory_budget \(1,000 bytes\)",
    ),
    "empty": (dataset().take(0), "at least one image; got none"),
    "rows": (dataset(IMAGES[:, 0]), r"the shape \(5,\)"),
    "ragged": (RAGGED, r"\(image, label\); got \(RaggedTensorSpec"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_DATASETS)
def test_other_datasets_are_refused_with_the_fix(case):
    value, message = BAD_DATASETS[case]
    with pytest.raises(UsageError, match=message):
        take(value, memory_budget=1000)
