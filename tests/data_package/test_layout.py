"""Folders of every shape: recognised, or refused, and nothing lost without a word."""

import os
import warnings

import pytest
from PIL import Image

import keras_mobilenets as km
from keras_mobilenets.data.folder import folder_source
from keras_mobilenets.data.layout import find_layout
from keras_mobilenets.errors import UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def plant(root, *paths, count=2):
    """Folders of pictures; a path with a suffix is a file."""
    for path in paths:
        if "." in path.rsplit("/", 1)[-1]:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9)).save(root / path)
        else:
            (root / path).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                Image.new("RGB", (9, 9)).save(root / path / f"{number}.png")


def seen(root):
    """Split: {class: images}, and what is passed over: {reason: names}."""
    layout = find_layout(root)
    files = {}
    for split, images in layout.files.items():
        files[split] = {}
        for name, _ in images:
            files[split][name] = files[split].get(name, 0) + 1
    passed = {
        reason: sorted(os.path.relpath(path, root) for path in paths)
        for reason, paths in layout.passed_over.items()
    }
    return files, passed


SPELLINGS = [
    ("train", "val", "test"), ("Train", "Val", "Test"), ("TRAIN", "VALID", "TESTING"),
    ("training", "validation", "testing"), ("Training", "dev", "test"),
]  # fmt: skip


@pytest.mark.parametrize("names", SPELLINGS, ids="-".join)
def test_splits_in_every_spelling(root, names):
    for name in names:
        plant(root, f"{name}/cat", f"{name}/dog")
    files, passed = seen(root)
    assert files == dict.fromkeys(("train", "validation", "test"), {"cat": 2, "dog": 2})
    assert not passed


def test_a_class_called_train(root):
    plant(root, "bus", "car", "train")
    assert seen(root) == ({"train": {"bus": 2, "car": 2, "train": 2}}, {})


def test_classes_without_splits_and_deeper_images(root):
    plant(root, "cat", "cat/indoors", "dog/outdoors/2019")
    assert seen(root)[0] == {"train": {"cat": 4, "dog": 2}}


def test_an_unlabelled_test_folder_is_said_and_none(root):
    plant(root, "train/cat", "train/dog", "val/cat", "val/dog")
    plant(root, "test", count=60)
    with pytest.warns(UserWarning, match="1 images without class folders.*'.*test'"):
        data = km.load_data(root, resolution=32, batch_size=1)
    assert (data.num_train, data.num_validation, data.num_test) == (4, 4, 4)


REFUSED = {
    "unknown splits": (["Train_set/cat", "Train_set/dog", "Val_set/cat", "Val_set/dog"],
                       "'Train_set', 'Val_set'.*all hold the folders 'cat', 'dog'"),
    "classes above splits": (["cat/train", "cat/val", "dog/train", "dog/val"],
                             "'cat', 'dog'.*all hold the folders 'train', 'val'"),
    "no train": (["val/cat", "val/dog"], "has 'val' but no train folder"),
    "classes beside test": (["cat", "dog", "test"],
                            "'test' but no train folder .and 'cat', 'dog'"),
    "twice": (["train/cat", "train/dog", "Train/cat", "Train/dog"],
              "one folder for train; .* has 'Train', 'train'"),
    "unlabelled": (["train", "test"], "images without labels: 'test', 'train' must|"
                   "images without labels: 'train', 'test' must"),
    "splits or classes": (["train/steam", "train/diesel", "car"],
                          "'train' with folders of images beside 'car'"),
    "one folder too deep": (["data/train/cat", "data/train/dog"], "at least two cla"),
    "only files": (["1.png", "2.png"], "holds 0 .no image"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_could_be_several_things_is_refused(root, kind):
    paths, message = REFUSED[kind]
    plant(root, *paths)
    with pytest.raises(UsageError, match=message):
        folder_source(root)


def test_what_is_passed_over_is_counted_and_named(root):
    plant(root, "train/cat", "train/dog", "val/cat", "val/dog", "extra/owl")
    plant(root, "top.png", "train/loose.JPG", "train/cat/.hidden.png")
    (root / "train" / "cat" / "phone.HEIC").write_bytes(b"heic")
    (root / "train" / "cat" / "notes").write_text("text")
    (root / "train" / "cat" / "Thumbs.db").write_text("litter")
    (root / "train" / "cat" / ".DS_Store").write_text("litter")
    assert seen(root)[1] == {
        "beside the split folders": ["extra"],
        "not in a class folder": ["top.png", "train/loose.JPG"],
        "hidden": ["train/cat/.hidden.png"],
        "named .heic": ["train/cat/phone.HEIC"],
        "other files": ["train/cat/notes"],
    }
    with pytest.warns(UserWarning, match="6 files or folders passed over") as caught:
        km.load_data(root, resolution=32, batch_size=1)
    (message,) = [str(w.message) for w in caught if "passed over" in str(w.message)]
    assert "1 named .heic (" in message
    problems = km.check_data(root)["problems"]
    assert sum("6 files or folders passed over" in line for line in problems) == 1


@pytest.mark.parametrize("suffix", ["webp", "jfif", "jpe", "JPEG", "Png", "dib"])
def test_other_names_of_images(root, suffix):
    plant(root, "cat", "dog", "cat/x.png")
    kind = {"webp": "WEBP", "dib": "BMP"}.get(suffix, "PNG")
    Image.new("RGB", (9, 9), "red").save(root / "cat" / f"y.{suffix}", kind)
    plant(root, "cat", "dog", count=60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = km.load_data(root, resolution=32, batch_size=1)
    assert data.num_train + data.num_validation + data.num_test == 122


# Links


def test_folders_that_are_links_are_followed(root, tmp_path):
    plant(tmp_path, "elsewhere/more", "elsewhere/dog")
    plant(root, "cat")
    (root / "cat" / "more").symlink_to(tmp_path / "elsewhere" / "more")
    (root / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    assert seen(root) == ({"train": {"cat": 4, "dog": 2}}, {})


@pytest.mark.parametrize("target", [".", "..", "/"])
def test_a_class_folder_that_leads_up_is_no_class(root, target):
    plant(root, "cat", "dog")
    (root / "all").symlink_to(target)
    files, passed = seen(root)
    assert files == {"train": {"cat": 2, "dog": 2}}
    assert passed == {"a link to a folder above it": ["all"]}


def test_links_inside_a_class_never_read_twice(root):
    plant(root, "cat", "cat/a", "dog")
    (root / "cat" / "loop").symlink_to("..")
    (root / "cat" / "b").symlink_to("a")
    (root / "cat" / "dogs").symlink_to("../dog")
    files, passed = seen(root)
    assert files == {"train": {"cat": 4, "dog": 2}}
    assert passed == {
        "a link to a folder that is read already": ["cat/b", "cat/loop"],
        "a link into another class": ["cat/dogs"],
    }


def test_a_class_that_is_a_link_to_another_is_broken(root):
    plant(root, "cat", "dog", count=40)
    (root / "hound").symlink_to("dog")
    with pytest.warns(UserWarning, match="hound' .a link to the class folder 'dog'"):
        assert km.load_data(root, resolution=32).classes == ("cat", "dog")


# Few images, odd names


def test_every_class_keeps_images_to_train_on(root):
    for number in range(40):
        plant(root, f"{number:02}", count=1 + number % 3)
    plant(root, "large", count=80)
    with pytest.warns(UserWarning, match="have a single image to train on"):
        data = km.load_data(root, resolution=32, batch_size=1)
    assert len(data.classes) == 41
    labels = [int(label) for _, labels in data.train for label in labels]
    assert set(labels) == set(range(41))
    assert data.num_validation > 0
    assert data.num_test > 0


def test_classes_that_differ_by_capitals_are_named(root):
    plant(root, "Cat", "cat", "dog", count=30)
    with pytest.warns(UserWarning, match="differ by capitals only: 'Cat', 'cat'"):
        km.load_data(root, resolution=32, batch_size=1)


ODD = {
    "newline": b"a\nb",
    "escape": b"\x1b[31mred",
    "not UTF-8": b"caf\xe9",
    "255 bytes": b"x" * 255,
    "quotes": b"'\"",
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_names_of_classes_and_files(root, kind, capsys):
    name = os.fsdecode(ODD[kind])
    plant(root, name, "dog", count=30)
    Image.new("RGB", (9, 9)).save(root / "dog" / f"{name[:200]}.png")
    (root / name / f"{name[:200]}.gif").write_bytes(b"no image")
    with pytest.warns(UserWarning, match="passed over") as caught:
        data = km.load_data(root, resolution=32, batch_size=1)
    assert name in data.classes
    assert data.num_train + data.num_validation + data.num_test == 61
    assert all(str(w.message).isprintable() for w in caught)
    assert sum(1 for _ in data.train) == data.num_train
    report = km.check_data(root)
    assert len(report["broken"]) == 1
    assert all(line.isprintable() for line in report["notes"] + report["problems"])


def test_a_folder_that_may_not_be_read(root):
    plant(root, "cat", "dog")
    (root / "cat").chmod(0)
    try:
        if os.access(root / "cat", os.R_OK):
            pytest.skip("as root")
        with pytest.raises(UsageError, match="can be read; .*cat': Permission denied"):
            folder_source(root)
    finally:
        (root / "cat").chmod(0o700)


@pytest.mark.parametrize(
    "path", ["~nobody-of-that-name/x", "a\0b", "x" * 300, "/" + "y/" * 3000],
    ids=["no user", "zero", "long name", "long path"],
)  # fmt: skip
def test_paths_that_cannot_be(path):
    with pytest.raises(UsageError, match="source must be"):
        km.load_data("./" + path if path[0] in "ax" else path, resolution=32)


def test_the_source_is_absolute(root, monkeypatch):
    plant(root, "cat", "dog", count=30)
    monkeypatch.chdir(root.parent)
    for name in ("photos/", "./photos", "./photos/../photos"):
        data = km.load_data(name, resolution=32, batch_size=1)
        assert data.source == str(root)
