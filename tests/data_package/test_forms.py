"""Every form of data gives what the class folder with the same images gives."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_mobilenets as km
from keras_mobilenets.__main__ import main
from keras_mobilenets.errors import UsageError

SPLITS = ("train", "validation", "test")
NUMBERS = np.random.default_rng(0)
COUNT = 60
LABELS = NUMBERS.integers(0, 3, COUNT)
IMAGES = NUMBERS.integers(0, 256, (COUNT, 11, 9, 3)).astype(np.uint8)
IMAGES[7] = 0  # zeros stay, at the end of a string too


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def make_folder(root, images, labels, split=""):
    """Class folders; files are named as images in memory are numbered."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = root / split / str(label) / f"{number:08}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return root


def pairs_in(folder):
    """(path, label) of a folder of class folders, in no order."""
    found = [(path, path.parent.name) for path in sorted(folder.rglob("*.png"))]
    return [found[n] for n in NUMBERS.permutation(len(found))]


def write_table(folder, file):
    rows = [f"{path.relative_to(file.parent)},{label}" for path, label in
            pairs_in(folder)]  # fmt: skip
    file.write_text("\n".join(["path,label", *rows]))
    return file


def dataset(images, labels):
    def examples():
        yield from zip(images, labels, strict=True)

    shape = [None] * np.ndim(images[0])
    if len(shape) == 3:
        shape[2] = images[0].shape[2]
    signature = (tf.TensorSpec(shape, tf.uint8), tf.TensorSpec([], tf.int64))
    return tf.data.Dataset.from_generator(examples, output_signature=signature)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("forms") / "photos", IMAGES, LABELS)


@pytest.fixture(scope="module")
def table(folder):
    return write_table(folder, folder.parent / "labels.csv")


FORMS = {
    "table": lambda folder: folder.parent / "labels.csv",
    "list": pairs_in,
    "numbers": lambda folder: ((str(p), int(label)) for p, label in pairs_in(folder)),
    "arrays": lambda folder: (IMAGES, LABELS),
    "texts": lambda folder: (IMAGES, LABELS.astype(str)),
    "dataset": lambda folder: dataset(IMAGES, LABELS),
}


def load(source, **arguments):
    return km.load_data(source, **{"resolution": 32, "batch_size": 4, **arguments})


def batches(some):
    return [tuple(part.copy() for part in batch) for batch in some.as_numpy_iterator()]


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def assert_same_data(data, expected):
    assert data.classes == expected.classes
    for split in SPLITS:
        assert getattr(data, f"num_{split}") == getattr(expected, f"num_{split}")
        assert_same(batches(getattr(data, split)), batches(getattr(expected, split)))
    assert_same(batches(data.train), batches(expected.train))  # the next epoch
    for splits in (data, expected):
        splits.set_position(3, 2)
    assert_same(batches(data.train), batches(expected.train))


@pytest.fixture(scope="module")
def expected(folder):
    return {recipe: load(folder, recipe=recipe) for recipe in ("quick", "slim_v2")}


def slow_siblings():
    """Forms; slow are those that differ from another by their labels alone."""
    for form in FORMS:
        marks = pytest.mark.slow if form in ("numbers", "texts") else ()
        yield pytest.param(form, marks=marks)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_batches_as_the_folder(form, folder, table, expected):
    compare_with_the_folder(form, "quick", folder, expected)


@pytest.mark.parametrize("form", slow_siblings())
def test_the_same_distortions_as_of_the_folder(form, folder, table, expected):
    compare_with_the_folder(form, "slim_v2", folder, expected)


def compare_with_the_folder(form, recipe, folder, expected):
    data = load(FORMS[form](folder), recipe=recipe)
    of_folder = expected[recipe]
    for splits in (data, of_folder):
        splits.set_epoch(0)
    assert min(data.num_validation, data.num_test) > 0
    for split in SPLITS:
        assert_same(batches(getattr(data, split)), batches(getattr(of_folder, split)))
    for epoch, step in ((1, 0), (3, 2)):
        for splits in (data, of_folder):
            splits.set_position(epoch, step)
        assert_same(batches(data.train), batches(of_folder.train))
    assert data.classes == of_folder.classes
    assert data.classes[-3:] == ("0", "1", "2")


def test_replicas_and_workers_share_it_as_a_folder(folder, expected):
    context = tf.distribute.InputContext(2, 1, 2)
    data = load((IMAGES, LABELS)).for_worker(context)
    of_folder = expected["quick"].for_worker(context)
    for splits in (data, of_folder):
        splits.set_epoch(1)
    for split in SPLITS:
        assert_same(batches(getattr(data, split)), batches(getattr(of_folder, split)))


@pytest.mark.parametrize("form", ["table", "list", "arrays", "dataset"])
def test_splits_of_its_own(form, tmp_path):
    cut = {"train": slice(0, 30), "validation": slice(30, 45), "test": slice(45, 60)}
    for split, part in cut.items():
        make_folder(tmp_path / "photos", IMAGES[part], LABELS[part], split)
    pairs = {split: pairs_in(tmp_path / "photos" / split) for split in cut}
    data = {
        "list": pairs,
        "arrays": {split: (IMAGES[part], LABELS[part]) for split, part in cut.items()},
        "dataset": {
            split: dataset(IMAGES[part], LABELS[part]) for split, part in cut.items()
        },
        "table": tmp_path / "labels.csv",
    }[form]
    rows = [
        f"{path},{label},{split}" for split in cut for path, label in pairs[split]
    ]  # fmt: skip
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    found, of_folder = load(data), load(tmp_path / "photos")
    assert (found.num_train, found.num_validation, found.num_test) == (30, 15, 15)
    for split in SPLITS:
        assert_same(batches(getattr(found, split)), batches(getattr(of_folder, split)))


def test_images_of_any_size_and_grey_ones(tmp_path):
    sizes = NUMBERS.integers(5, 20, (COUNT, 2))
    images = [NUMBERS.integers(0, 256, (h, w)).astype(np.uint8) for h, w in sizes]
    folder = make_folder(tmp_path / "photos", images, LABELS)
    data = load(dataset(images, LABELS), recipe="slim_v2")
    of_folder = load(folder, recipe="slim_v2")
    for split in SPLITS:
        assert_same(batches(getattr(data, split)), batches(getattr(of_folder, split)))


@pytest.mark.parametrize(
    ("kinds", "channels"),
    [
        *(((1, 3, 4), channels) for channels in (1, 3, 4)),
        ((1, 3), 4),
        ((4,), 3),
        *(
            pytest.param(kinds, channels, marks=pytest.mark.slow)
            for kinds, channels in (((1, 3), 1), ((1, 3), 3), ((4,), 1), ((4,), 4))
        ),
    ],
    ids=str,
)
def test_grey_and_colour_and_alpha_together(kinds, channels, tmp_path):
    images = [
        NUMBERS.integers(0, 256, (9, 9, kinds[n % len(kinds)])).astype(np.uint8)
        for n in range(COUNT)
    ]

    def examples():
        yield from zip(images, LABELS, strict=True)

    signature = (
        tf.TensorSpec([None, None, None], tf.uint8), tf.TensorSpec([], tf.int64),
    )  # fmt: skip
    given = tf.data.Dataset.from_generator(examples, output_signature=signature)
    plain = [image[..., 0] if image.shape[2] == 1 else image for image in images]
    folder = make_folder(tmp_path / "photos", plain, LABELS)
    of_folder, data = (load(some, channels=channels) for some in (folder, given))
    for split in SPLITS:
        assert_same(batches(getattr(data, split)), batches(getattr(of_folder, split)))


def test_more_than_ten_classes_of_numbers_are_in_their_order():
    labels = np.arange(COUNT) % 12
    assert load((IMAGES, labels)).classes == tuple(map(str, range(12)))
    assert load((IMAGES, labels.astype(str))).classes[:3] == ("0", "1", "10")
    gap = np.where(labels == 3, 100, labels)
    data = load((IMAGES, gap))
    assert data.classes == (*map(str, [0, 1, 2, *range(4, 12)]), "100")
    assert {int(n) for _, some in batches(data.train_once) for n in some} == set(
        range(12)
    )


# The index


@pytest.mark.parametrize("form", ["table", "list"])
def test_an_index_of_files_needs_no_list(form, folder, table, tmp_path):
    data = load(FORMS[form](folder))
    data.index.save(tmp_path / "data.json")
    source = data.source
    assert json.loads((tmp_path / "data.json").read_text())["source"] == source
    if form == "table":
        assert source == str(table)
        content = table.read_text()
        table.write_text("path,label\nnothing.png,else\n")
    try:
        again = load(source, index=tmp_path / "data.json")
    finally:
        if form == "table":
            table.write_text(content)
    for split in SPLITS:
        assert_same(batches(getattr(data, split)), batches(getattr(again, split)))
    assert again.index.as_dict() == data.index.as_dict()
    with pytest.raises(UsageError, match=r"data.json' is of .*; got 'list:"):
        load([(folder / "0", "a"), (folder / "1", "b")], index=tmp_path / "data.json")
    with pytest.raises(UsageError, match="is of another source than 'arrays:"):
        load((IMAGES, LABELS), index=tmp_path / "data.json")


@pytest.mark.parametrize("form", ["arrays", "dataset"])
def test_an_index_of_images_in_memory_needs_them(form, folder, tmp_path):
    data = load(FORMS[form](folder))
    data.index.save(tmp_path / "data.json")
    again = load(FORMS[form](folder), index=tmp_path / "data.json")
    assert_same(batches(data.test), batches(again.test))
    with pytest.raises(UsageError, match="pass it again, data="):
        load(data.source, index=tmp_path / "data.json")
    with pytest.raises(UsageError, match="pass the same images and labels"):
        load((IMAGES[::-1], LABELS), index=tmp_path / "data.json")
    content = json.loads((tmp_path / "data.json").read_text())
    content["parts"]["test"]["examples"] = "3"
    (tmp_path / "data.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"data\.json' is damaged"):
        load(FORMS[form](folder), index=tmp_path / "data.json")


@pytest.mark.parametrize(
    "change",
    [
        {"source": None},
        {"parts": {split: [[0, "relative", ["a.png"]]] for split in SPLITS}},
        {"parts": {split: [[9, "/", ["a.png"]]] for split in SPLITS}},
    ],
)
def test_a_damaged_index_of_files(change, folder, table, tmp_path):
    content = load(table).index.as_dict() | change
    (tmp_path / "data.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"data\.json' is damaged"):
        load(table, index=tmp_path / "data.json")


# What is wrong with files


def test_missing_files_are_counted_and_named(folder):
    pairs = pairs_in(folder)
    gone = [(folder / "0" / f"x{n}.png", "0") for n in range(5)]
    message = r"5 of 65 files that are not there: '.*x0.png', .*, \.\.\.; remove these"
    with pytest.raises(UsageError, match=message):
        load([*pairs, *gone])
    with pytest.raises(UsageError, match="60 of 60 files.*relative paths are taken"):
        load([(f"elsewhere/{path.name}", label) for path, label in pairs])
    with pytest.raises(UsageError, match="paths have / between folders"):
        load([(str(path).replace("/", "\\"), label) for path, label in pairs])
    with pytest.raises(UsageError, match="1 of 61 files that are not there"):
        load([*pairs, (folder / "0", "0")])


def test_a_path_that_is_there_twice(folder):
    pairs = pairs_in(folder)
    path, label = pairs[0]
    other = "2" if label != "2" else "0"
    with pytest.raises(UsageError, match=f"two labels, '{label}' and '{other}'"):
        load([*pairs, (path, other)])
    with pytest.raises(UsageError, match="two splits, 'train' and 'test'"):
        load({"train": pairs, "test": pairs[:1]})
    again = path.parent / ".." / path.parent.name / path.name
    with pytest.warns(UserWarning, match="1 row of 'list:.*' are repeated"):
        data = load([*pairs, (again, label)])
    assert data.num_train + data.num_validation + data.num_test == COUNT


def test_other_things_that_are_wrong(folder):
    pairs = pairs_in(folder)
    with pytest.raises(UsageError, match="at least two classes; 'list:.*' holds 1"):
        load([(path, "one") for path, _ in pairs])
    with pytest.raises(UsageError, match="the class 'new' in test but not in train"):
        load({"train": pairs[1:], "test": [(pairs[0][0], "new")]})
    with pytest.raises(UsageError, match="too few to cut a tenth from"):
        load(pairs[:3] + [p for p in pairs[3:] if p[1] != pairs[0][1]][:1])
    alone = next(n for n, (_, label) in enumerate(pairs) if label == "0")
    some = [p for n, p in enumerate(pairs) if p[1] != "0" or n == alone]
    with pytest.warns(UserWarning, match="1 class of 3 has a single image"):
        load(some)
    for option in ({"label": "kind"}, {"image": "photo"}):
        with pytest.raises(UsageError, match="is for TFDS names and CSV files; got"):
            load(pairs, **option)
        with pytest.raises(UsageError, match="is for TFDS names and CSV files; got"):
            load(folder, **option)
    with pytest.raises(UsageError, match="splits are for TFDS names"):
        load(pairs, splits={"train": "train"})
    with pytest.raises(UsageError, match="batch_size must be at most .* of 'arrays:"):
        load((IMAGES, LABELS), batch_size=100)


def test_broken_files_are_passed_over_as_in_a_folder(tmp_path):
    folder = make_folder(tmp_path / "photos", IMAGES, LABELS)
    broken = sorted(folder.rglob("*.png"))[5]
    broken.write_bytes(b"no image")
    with pytest.warns(UserWarning, match="1 file or folder in .* cannot be read"):
        data = load(pairs_in(folder))
    with pytest.warns(UserWarning, match="cannot be read"):
        of_folder = load(folder)
    assert_same(batches(data.train), batches(of_folder.train))
    with pytest.raises(UsageError, match="no broken files with broken='fail'"):
        load(pairs_in(folder), broken="fail")
    gone = pathlib.Path(next(iter(data.index.as_dict()["parts"]["train"]))[1])
    assert gone.is_absolute()


# The doctor


@pytest.mark.parametrize("form", slow_siblings())
def test_the_doctor_says_the_same_as_of_a_folder(form, folder, table, tmp_path):
    sheet = tmp_path / "sheet.png"
    report = km.check_data(FORMS[form](folder), sheet=sheet, resolution=32)
    of_folder = km.check_data(folder, sheet=tmp_path / "other.png", resolution=32)
    json.dumps(report)
    for key in ("classes", "splits", "broken", "problems", "notes"):
        assert report[key] == of_folder[key], key
    assert sheet.read_bytes() == (tmp_path / "other.png").read_bytes()


def test_the_doctor_finds_the_same_image_twice():
    images, labels = IMAGES.copy(), LABELS.copy()
    images[1], labels[0], labels[1] = images[0], 0, 1
    report = km.check_data((images, labels))
    assert "1 of the images are in several classes" in report["problems"]
    (same,) = report["duplicates"]
    assert {entry["class"] for entry in same} == {"0", "1"}


def test_the_doctor_on_a_table(folder, table, capsys):
    assert main(["doctor", "--data", str(table)]) == 0
    assert "no problems found" in capsys.readouterr().out
    named = folder.parent / "named.csv"
    named.write_text(table.read_text().replace("path,label", "photo,kind"))
    options = ["--data", str(named), "--label", "kind", "--image", "photo"]
    assert main(["doctor", *options]) == 0
    capsys.readouterr()
    assert main(["doctor", "--data", str(named)]) == 2
    error = capsys.readouterr().err
    assert "1 of 61 files that are not there" in error
    assert "if line 1 names the columns" in error
    assert error.count("\n") == 1
