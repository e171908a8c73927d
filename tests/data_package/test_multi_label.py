"""Several labels an image, or none: in every form, to the same batches."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_mobilenets as km
from keras_mobilenets.__main__ import main
from keras_mobilenets.data.dividing import divide
from tests.data_package.test_forms import assert_same, assert_same_data, batches, load

CLASSES = ("blue", "green", "red")  # sorted, as their columns
NUMBERS = np.random.default_rng(0)
COUNT = 60
ROWS = NUMBERS.integers(0, 2, (COUNT, 3))
IMAGES = NUMBERS.integers(0, 256, (COUNT, 11, 9, 3)).astype(np.uint8)
NAMES = [[name for name, has in zip(CLASSES, row, strict=True) if has] for row in ROWS]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Files that are named as images in memory are numbered."""
    folder = tmp_path_factory.mktemp("several")
    for number, image in enumerate(IMAGES):
        Image.fromarray(image).save(folder / f"{number:08}.png")
    return sorted(folder.glob("*.png"))


def write_table(file, paths, labels=None, header="path,label"):
    said = ["|".join(names) for names in NAMES] if labels is None else labels
    rows = [f"{path},{text}" for path, text in zip(paths, said, strict=True)]
    file.write_text("\n".join([header, *rows]))
    return file


FORMS = {
    "table": lambda paths: write_table(paths[0].with_name("labels.csv"), paths),
    "list": lambda paths: list(zip(paths, NAMES, strict=True))[::-1],
    "lists of arrays": lambda paths: (IMAGES, [*map(tuple, NAMES)]),
    "matrix": lambda paths: (IMAGES, ROWS),
    "truths": lambda paths: (IMAGES, ROWS == 1),
    "dataset": lambda paths: tf.data.Dataset.from_tensor_slices((IMAGES, ROWS)),
}


@pytest.fixture(scope="module")
def expected(paths):
    return load(list(zip(paths, NAMES, strict=True)))


@pytest.mark.parametrize("form", FORMS)
def test_the_same_batches_in_every_form(form, paths, expected):
    data = load(FORMS[form](paths), multi_label=True if form == "table" else None)
    assert data.multi_label
    if form in ("matrix", "truths", "dataset"):
        # Columns have numbers for names, which are part of what divides the images.
        named = load((IMAGES, [[CLASSES.index(n) for n in names] for names in NAMES]))
        assert data.classes == ("0", "1", "2")
        assert_same_data(data, named)
        return
    expected.set_epoch(0)
    data.set_epoch(0)
    assert_same_data(data, expected)


def test_labels_are_rows_of_0_and_1(expected):
    assert expected.classes == CLASSES
    seen = {}
    for split in ("train_once", "validation", "test"):
        for images, labels in batches(getattr(expected, split)):
            assert labels.dtype == np.float32
            for image, label in zip(images, labels, strict=True):
                seen[image.tobytes()] = label.tolist()
    wanted = {}
    for images, labels in batches(load((IMAGES, np.arange(COUNT) % 2)).train_once):
        del labels
        wanted |= dict.fromkeys(image.tobytes() for image in images)
    assert len(seen) == COUNT
    counts = {tuple(row): list(seen.values()).count(list(row)) for row in ROWS.tolist()}
    assert counts == {row: ROWS.tolist().count(list(row)) for row in counts}, (
        "every image has its own"
    )
    shared = set(wanted) & set(seen)
    assert shared
    padded = load((IMAGES, ROWS), batch_size=8, pad_evaluation=True)
    *_, (images, labels, weights) = batches(padded.validation)
    assert labels.shape == (8, 3)
    assert 0 < weights.sum() <= 8


def test_one_label_each_divides_as_classes_do(paths):
    """So that a file of labels which becomes one of several keeps its splits."""
    one = NUMBERS.integers(0, 3, COUNT)
    single = load((IMAGES, one))
    several = load((IMAGES, [[n] for n in one]), multi_label=True)
    for splits in (single, several):
        splits.set_epoch(1)
    for split in ("train", "validation", "test"):
        for (a, n), (b, rows) in zip(
            batches(getattr(single, split)), batches(getattr(several, split)),
            strict=True,
        ):  # fmt: skip
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(np.eye(3)[n], rows)


def test_half_of_every_label_stays_in_train():
    random = np.random.default_rng(1)
    sets = [
        tuple(np.flatnonzero(row).tolist()) for row in random.random((900, 4)) < 0.3
    ]
    sets[0] = (*sets[0], 9)  # a label that a single image has
    items = [(label, number) for number, label in enumerate(sets)]
    notes = []
    divided = divide({"train": items}, str, "here", lambda text, _: notes.append(text))
    assert divided.classes == ("0", "1", "2", "3", "9")
    counts = {
        split: np.bincount([c for n, _ in part for c in divided.label_sets[n]], None, 5)
        for split, part in divided.parts.items()
    }
    whole = sum(counts.values())
    assert (counts["train"] >= whole / 2).all()
    assert counts["train"][4] == 1
    assert "1 class of 5 has a single image to train on: '9'" in notes
    for split in ("validation", "test"):
        assert 60 < len(divided.parts[split]) < 120, "a tenth each"
        assert (counts[split][:4] > 0.05 * whole[:4]).all()
    more = divide({"train": [*items, ((0, 1), 5000)]}, str, "here", lambda *_: None)
    held = {item for _, item in divided.parts["test"]}
    assert len(held ^ {item for _, item in more.parts["test"]}) <= 2


def test_an_index_has_them(paths, expected, tmp_path):
    table = write_table(tmp_path / "labels.csv", paths)
    first = load(table, multi_label=True)
    first.index.save(tmp_path / "index.json")
    stored = json.loads((tmp_path / "index.json").read_text())
    assert [] in stored["label_sets"]
    assert [0, 1, 2] in stored["label_sets"]
    table.write_text("path,label\n" + "\n".join(f"{p},one" for p in paths))
    again = load(table, index=tmp_path / "index.json")
    for splits in (again, expected):
        splits.set_epoch(0)
    assert again.multi_label
    assert_same_data(again, expected)

    stored["label_sets"][0] = [7]
    (tmp_path / "index.json").write_text(json.dumps(stored))
    with pytest.raises(km.UsageError, match="is damaged .*a label"):
        load(table, index=tmp_path / "index.json")
    del stored["label_sets"][3:]
    stored["label_sets"][0] = [0]
    (tmp_path / "index.json").write_text(json.dumps(stored))
    with pytest.raises(km.UsageError, match="is damaged .*a label"):
        load(table, index=tmp_path / "index.json")


def test_replicas_and_workers_share_it(expected):
    context = tf.distribute.InputContext(2, 1, 2)
    share = expected.for_worker(context)
    share.set_epoch(0)
    images, labels = next(iter(batches(share.train)))
    assert labels.shape == (2, 3)


def test_no_background_class():
    data = load((IMAGES, ROWS), recipe="slim_v2")
    assert data.classes == ("0", "1", "2")
    assert load((IMAGES, ROWS[:, 0]), recipe="slim_v2").classes[0] == "background"


def test_a_bar_in_a_csv_has_to_be_explained(paths, tmp_path):
    table = write_table(tmp_path / "labels.csv", paths)
    with pytest.raises(
        km.UsageError, match=r"multi_label=True if these.*=False if '|'"
    ):
        load(table)
    text = ["a|b" if row[0] else "c" for row in ROWS]
    data = load(write_table(table, paths, text), multi_label=False)
    assert data.classes == ("a|b", "c")
    assert not data.multi_label
    with pytest.raises(
        km.UsageError, match=r"no label in line \d+; if an image may ha"
    ):
        load(write_table(table, paths, ["" if row[0] else "c" for row in ROWS]))


ONE_HOT = np.eye(3, dtype=int)[np.arange(COUNT) % 3]
BAD = {
    "one-hot": ({}, lambda paths: (IMAGES, ONE_HOT), r"argmax\(axis=1\) if they"),
    "one-hot dataset": (
        {}, lambda paths: tf.data.Dataset.from_tensor_slices((IMAGES, ONE_HOT)),
        "multi_label=True if an image may",
    ),
    "lists of one": (
        {}, lambda paths: [(path, ["cat"]) for path in paths], "multi_label=True if an",
    ),
    "rows, denied": (
        {"multi_label": False}, lambda paths: (IMAGES, ROWS), "one label for each",
    ),
    "one each, claimed": (
        {"multi_label": True}, lambda paths: (IMAGES, ROWS[:, 0]), "such as ",
    ),
    "a folder": ({"multi_label": True}, lambda paths: paths[0].parent, "folder says"),
    "digits": ({"multi_label": True}, lambda paths: "digits", "that its feature says"),
    "no flag": ({"multi_label": "yes"}, lambda paths: (IMAGES, ROWS), "True or False"),
    "class weights": (
        {"class_weight": "balanced"}, lambda paths: (IMAGES, ROWS),
        "class_weight is for images of one label each; got 'balanced'",
    ),
    "all the same": (
        {}, lambda paths: (IMAGES, np.ones_like(ROWS)), "all of .* have '0|1|2'",
    ),
    "one class": (
        {}, lambda paths: (IMAGES, ROWS[:, :1].astype(bool)), "got bool|whole numbers",
    ),
    "a label of no use": (
        {}, lambda paths: [(p, ["a"] if n % 2 else []) for n, p in enumerate(paths)],
        "at least two classes; .* holds 1",
    ),
    "a label in test alone": (
        {}, lambda paths: {
            "train": list(zip(paths[:40], NAMES[:40], strict=True)),
            "test": [(paths[50], ["pink", "red"])],
        },
        "has the class 'pink' in test but not in train",
    ),
    "two rows": (
        {}, lambda paths: [*zip(paths, NAMES, strict=True), (paths[0], ["red", "blue"]),
                           (paths[0], ["green"])],
        "with two labels, .*write all labels of an image in one row",
    ),
    "an empty one": (
        {"multi_label": True},
        lambda paths: write_table(
            paths[0].with_name("empty.csv"), paths[:2], ["a||b", "c"]
        ),
        "empty label between '|' in line 2",
    ),
    "twice": (
        {"multi_label": True},
        lambda paths: write_table(
            paths[0].with_name("twice.csv"), paths[:2], ["a|b|a", "c"]
        ),
        "line 2 of .* must differ; got 'a' more than once",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_could_be_mistaken_is_refused(case, paths):
    options, make, message = BAD[case]
    with pytest.raises(km.UsageError, match=message) as raised:
        load(make(paths), **options)
    assert "\n" not in str(raised.value)


def test_a_table_with_spaces_splits_and_no_header(paths, tmp_path):
    rows = [
        f"{path};{' | '.join(names)};{'val' if number % 5 == 0 else 'train'}"
        for number, (path, names) in enumerate(zip(paths, NAMES, strict=True))
    ]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    data = load(tmp_path / "labels.csv", multi_label=True)
    assert data.classes == CLASSES
    assert (data.num_train, data.num_validation) == (48, 12)
    assert data.test_is_validation


def test_doctor_counts_labels(paths, tmp_path, capsys):
    twice = [*paths, paths[0].with_name("again.png")]
    twice[-1].write_bytes(paths[0].read_bytes())
    said = [
        *("|".join(names) for names in NAMES),
        "blue" if NAMES[0] != ["blue"] else "",
    ]
    table = write_table(tmp_path / "labels.csv", twice, said)
    sheet = tmp_path / "sheet.png"
    options = ["doctor", "--data", str(table), "--multi-label", "--json"]
    assert main([*options, "--sheet", str(sheet), "--resolution", "32"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["multi_label"]
    for column, name in enumerate(CLASSES):
        known = ROWS[:, column].sum() + (name in said[-1])
        assert sum(report["classes"][name].values()) == known
    (same,) = report["duplicates"]
    assert {one["class"] for one in same} == {"|".join(NAMES[0]), said[-1]}
    assert "1 of the images are there with different labels" in report["problems"]
    none = said.count("")
    assert any(
        note.startswith("images have 0 to 3 labels,")
        and note.endswith(f"{none} of 61 have none")
        for note in report["notes"]
    )
    with Image.open(sheet) as image:
        assert image.height > 32
    assert main(["doctor", "--data", str(table)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "multi_label=True" in error
    twice[-1].unlink()


def test_small_batches_are_the_same_after_a_position(expected):
    expected.set_position(2, 3)
    rest = batches(expected.train)
    expected.set_position(2, 0)
    assert_same(batches(expected.train)[3:], rest)
