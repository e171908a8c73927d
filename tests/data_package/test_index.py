"""The index of a run's data: what it began with, whatever has happened since."""

import json
import shutil
import time

import numpy as np
import pytest
from PIL import Image

import keras_mobilenets as km
from keras_mobilenets.data import files, folder, sources
from keras_mobilenets.data.digits import prepared_digits
from keras_mobilenets.data.index import read_index
from keras_mobilenets.errors import UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    """Sixty pictures of two classes; the red value is the class, the green a number."""
    for label, name in enumerate(("cat", "dog\n")):
        for number in range(30):
            where = tmp_path / "photos" / name
            path = (where if number % 2 else where / "deeper") / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), (label * 255, number, 0)).save(path)
    return tmp_path / "photos"


def load(source, **arguments):
    return km.load_data(source, **{"resolution": 32, "batch_size": 4, **arguments})


def batches(dataset):
    return [
        tuple(part.copy() for part in batch) for batch in dataset.as_numpy_iterator()
    ]


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_index_gives_the_same_splits_without_a_look_at_the_folder(
    photos, tmp_path, monkeypatch
):
    data = load(photos, seed=3)
    file = tmp_path / "data.json"
    data.index.save(file)
    content = json.loads(file.read_text())
    assert content["root"] == str(photos)
    for number in range(20):  # more images, and a class more
        for name in ("cat", "fox"):
            (photos / name).mkdir(exist_ok=True)
            Image.new("RGB", (9, 9)).save(photos / name / f"new{number}.png")
    monkeypatch.setattr(folder, "find_layout", lambda *_: pytest.fail("looked through"))
    monkeypatch.chdir(photos.parent)
    again = load("./photos/", seed=3, index=file)
    assert again.classes == data.classes == ("cat", "dog\n")
    for split in ("train", "validation", "test"):
        assert getattr(again, f"num_{split}") == getattr(data, f"num_{split}")
        assert_same(batches(getattr(again, split)), batches(getattr(data, split)))
    assert again.index.as_dict() == data.index.as_dict()
    again.set_position(1, 2)
    data.set_epoch(1)
    assert_same(batches(again.train), batches(data.train)[2:])


def test_what_breaks_later_keeps_its_place(photos, tmp_path):
    """In 0.1.0 a run could not be resumed after that: the counts had changed."""
    file = tmp_path / "data.json"
    data = load(photos, batch_size=1, pad_evaluation=True)
    data.index.save(file)
    before = {split: batches(getattr(data, split)) for split in ("train", "test")}
    parts = data.index.as_dict()["parts"]
    lost = {}
    for split in ("train", "test"):
        label, place, names = parts[split][0]
        lost[split] = photos / place / names[0]
    lost["train"].unlink()
    lost["test"].write_bytes(b"")
    again = load(photos, batch_size=1, pad_evaluation=True, index=file)
    assert again.num_train == data.num_train
    assert again.num_test == data.num_test
    with pytest.warns(UserWarning, match="cannot be read"):
        after = {split: batches(getattr(again, split)) for split in before}
    changed = [
        not np.array_equal(one[0], other[0])
        for one, other in zip(before["train"], after["train"], strict=True)
    ]
    assert sum(changed) == 1, "another stands in"
    weights = [float(weight[0]) for *_, weight in after["test"]]
    assert weights == [0.0] + [1.0] * (len(weights) - 1)


def test_a_folder_that_is_gone_is_said_at_once(photos, tmp_path):
    load(photos).index.save(tmp_path / "data.json")
    shutil.rmtree(photos)
    with pytest.raises(UsageError, match="photos' does not exist"):
        load(photos, index=tmp_path / "data.json")


def test_digits(tmp_path):
    prepared_digits(tmp_path / "tfds")
    splits = {"train": "train[:50]", "test": "test[:20]"}
    arguments = dict(data_dir=tmp_path / "tfds", splits=splits)
    data = load("digits", **arguments)
    data.index.save(tmp_path / "data.json")
    content = json.loads((tmp_path / "data.json").read_text())
    assert content["name"] == "digits/1.0.0"
    assert content["data_dir"] == str(tmp_path / "tfds")
    assert content["parts"]["train"] == {
        "split": "train[:50]", "examples": 50, "shards": [50],
    }  # fmt: skip
    for given in (arguments, {}):
        again = load("digits", index=tmp_path / "data.json", **given)
        assert (again.num_train, again.num_validation, again.num_test) == (50, 180, 20)
    assert_same(batches(again.train), batches(data.train))
    with pytest.raises(UsageError, match=r"data\.json' is of the splits"):
        load("digits", index=tmp_path / "data.json", splits={"train": "train[:51]"})

    def change(key, value):
        changed = json.loads((tmp_path / "data.json").read_text())
        changed["parts"]["test"][key] = value
        (tmp_path / "other.json").write_text(json.dumps(changed))

    for key, value in (("examples", 21), ("shards", [10, 10])):
        change(key, value)
        with pytest.raises(UsageError, match=r"other\.json' is of 'digits/1.0.0' with"):
            load("digits", index=tmp_path / "other.json")
    change("split", "nowhere[:3]")
    with pytest.raises(UsageError, match="splits must name splits"):
        load("digits", index=tmp_path / "other.json")


def test_an_index_of_another_source(photos, tmp_path):
    load(photos).index.save(tmp_path / "data.json")
    shutil.copytree(photos, tmp_path / "copy")
    with pytest.raises(UsageError, match=r"data\.json' is of the folder"):
        load(tmp_path / "copy", index=tmp_path / "data.json")
    with pytest.raises(UsageError, match=r"data\.json' is of another source.*'digits'"):
        load("digits", data_dir=tmp_path, index=tmp_path / "data.json")


HOSTILE = {
    "no JSON": "{",
    "a list": "[]",
    "another file": "{}",
    "deep": "[" * 100_000,
    "format only": '{"format": "keras_mobilenets data index 1"}',
    "kind": {"kind": "zip"},
    "kind of a kind": {"kind": []},
    "classes": {"classes": {"cat": 1}},
    "numbers as classes": {"classes": [1, 2]},
    "no classes": {"classes": []},
    "relative root": {"root": "photos"},
    "no root": {"root": None},
    "no parts": {"parts": {}},
    "parts": {"parts": [1, 2]},
    "label": {"parts": {"train": [[2, "cat", ["x.png"]]]}},
    "truth as label": {"parts": {"train": [[True, "cat", ["x.png"]]]}},
    "names": {"parts": {"train": [[0, "cat", "x.png"]]}},
    "number as name": {"parts": {"train": [[0, "cat", [1]]]}},
    "no names": {"parts": {"train": [[0, "cat", []]]}},
    "rows": {"parts": {"train": [0]}},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_damaged_index_is_named(photos, tmp_path, kind):
    file = tmp_path / "data.json"
    content = HOSTILE[kind]
    if isinstance(content, dict):
        good = {
            "format": "keras_mobilenets data index 1", "kind": "folder",
            "root": str(photos), "classes": ["cat", "dog\n"],
        }  # fmt: skip
        parts = dict.fromkeys(("train", "validation", "test"), [[0, "cat", ["a.png"]]])
        if isinstance(content.get("parts"), dict) and content["parts"]:
            content = {"parts": {**parts, **content["parts"]}}
        content = json.dumps({**good, "parts": parts, **content})
    file.write_text(content)
    with pytest.raises(UsageError, match=r"data\.json'"):
        load(photos, index=file)


def test_an_index_that_is_not_there(photos, tmp_path):
    with pytest.raises(UsageError, match=r"none\.json' cannot be read"):
        load(photos, index=tmp_path / "none.json")


def test_every_training_image_once(photos):
    """`train` drops the rest of an epoch, and is distorted."""
    data = load(photos, batch_size=7, recipe="flowers")
    seen = [
        image.tobytes() for images, _ in batches(data.train_once) for image in images
    ]
    assert len(seen) == len(set(seen)) == data.num_train
    assert data.train_once is data.train_once
    assert sum(len(labels) for _, labels in batches(data.train)) < data.num_train


@pytest.mark.slow
def test_an_index_of_as_many_files_as_imagenet(tmp_path):
    names = [f"n01440764_{number}.JPEG" for number in range(1282)]
    paths = [
        (label, f"/data/train/n{label:08}/{name}")
        for label in range(1000)
        for name in names
    ]
    parts = {"train": paths, "validation": paths[:9], "test": paths[:9]}
    grouped = {split: files.grouped(listed, "/data") for split, listed in parts.items()}
    described = {
        "kind": "folder", "root": "/data", "parts": grouped,
        "classes": [str(n) for n in range(1000)],
    }  # fmt: skip
    index = sources.Index(lambda: described)
    started = time.perf_counter()
    index.save(tmp_path / "data.json")
    saved = time.perf_counter()
    assert (tmp_path / "data.json").stat().st_size < 40e6
    read_index(tmp_path / "data.json")
    assert saved - started < 60
    assert time.perf_counter() - saved < 60
