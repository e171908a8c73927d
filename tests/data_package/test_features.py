"""TFDS datasets whose image and label have other names, made here."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

import keras_mobilenets as km
from keras_mobilenets.__main__ import main
from keras_mobilenets.errors import UsageError

LABEL = tfds.features.ClassLabel(names=["no", "yes", "perhaps"])
PNG = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
GREY = tfds.features.Image(shape=(9, 9, 1))
TRUTH = tfds.features.Scalar(dtype=np.bool_)


class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """40 examples; image n has the value n everywhere."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = {}

    def __init__(self, name, features, data_dir):
        self.name, self._features = name, features
        super().__init__(data_dir=data_dir)

    def _info(self):
        features = tfds.features.FeaturesDict(self._features)
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for n in range(40):
            yield n, {k: self._value(k, f, n) for k, f in self._features.items()}

    def _value(self, name, feature, n):
        if isinstance(feature, dict):
            return {k: self._value(k, f, n) for k, f in feature.items()}
        if isinstance(feature, tfds.features.Image):
            height, width, channels = feature.shape
            size = (height or 9, width or 7 + n % 3, channels)
            return np.full(size, n, np.uint8)
        return {"species": n % 3, "family": n // 20, "label": n % 2}.get(
            name, n % 5 == 0
        )


BIRDS = {"photo": PNG, "species": LABEL, "family": LABEL}
FACES = {
    "image": GREY, "left_eye": tfds.features.Scalar(np.int64),
    "attributes": {"Smiling": TRUTH, "Young": TRUTH},
}  # fmt: skip
USUAL = {"image": GREY, "label": LABEL, "Smiling": TRUTH}
TWO = {"left": PNG, "right": PNG, "label": LABEL}
TWICE = {"image": GREY, "a": {"label": LABEL}, "b": {"label": LABEL}}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    where = tmp_path_factory.mktemp("tfds")
    for name, features in (
        ("birds", BIRDS), ("faces", FACES), ("usual", USUAL), ("two", TWO),
        ("twice", TWICE),
    ):  # fmt: skip
        Made(name, features, where).download_and_prepare()
    return where


def load(name, data_dir, **options):
    return km.load_data(name, data_dir=data_dir, resolution=32, batch_size=4, **options)


def seen(data):
    """{value of the image: label} of all of it."""
    found = {}
    for batches in (data.train_once, data.validation, data.test):
        for images, labels in batches.as_numpy_iterator():
            values = np.rint((images[:, 0, 0, 0] + 1) * 127.5).astype(int)
            found |= dict(zip(values.tolist(), labels.tolist(), strict=True))
    return found


@pytest.mark.parametrize("memory", [2**20, 100], ids=["in memory", "from shards"])
@pytest.mark.parametrize(
    ("name", "label", "classes", "label_of"),
    [
        ("birds", "species", ("no", "yes", "perhaps"), lambda n: n % 3),
        ("birds", "family", ("no", "yes", "perhaps"), lambda n: n // 20),
        ("faces", "Smiling", ("not Smiling", "Smiling"), lambda n: n % 5 == 0),
        ("faces", "attributes/Young", ("not Young", "Young"), lambda n: n % 5 == 0),
        ("usual", None, ("no", "yes", "perhaps"), lambda n: n % 2),
        ("usual", "Smiling", ("not Smiling", "Smiling"), lambda n: n % 5 == 0),
    ],
)
def test_labels_by_name(data_dir, name, label, classes, label_of, memory):
    data = load(name, data_dir, label=label, memory_budget=memory)
    assert data.classes == classes
    assert seen(data) == {n: int(label_of(n)) for n in range(40)}


def test_images_by_name(data_dir):
    for image in ("left", "right"):
        assert len(seen(load("two", data_dir, image=image))) == 40


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("birds", {}, "has family, photo, species: give label, one of family, sp"),
        ("faces", {}, "give label, one of attributes/Smiling, attributes/Young"),
        ("birds", {"label": "specie"}, "no such feature.*did you mean 'species'"),
        ("birds", {"label": "photo"}, r"label must be one of family, sp.*\(Image\)"),
        ("faces", {"label": "left_eye"}, r"one of attributes/Sm.*'left_eye' \(Scalar"),
        ("faces", {"label": "attributes"}, "no such feature"),
        ("two", {}, "has label, left, right: give image, one of left, right"),
        ("two", {"image": "label"}, "image must be one of left, right.*ClassLabel"),
        ("twice", {"label": "label"}, "several of that name"),
        ("usual", {"label": 3}, "label must be the name of a feature; got 3"),
    ],
)
def test_other_names_are_answered_with_those_there_are(
    data_dir, name, options, message
):
    with pytest.raises(UsageError, match=message):
        load(name, data_dir, **options)


def test_an_index_knows_its_label(data_dir, tmp_path):
    file = tmp_path / "data.json"
    load("birds", data_dir, label="species").index.save(file)
    again = load("birds", data_dir, label="species", index=file)
    assert seen(again)[5] == 2
    with pytest.raises(UsageError, match="whose label is 'species'; got 'family'"):
        load("birds", data_dir, label="family", index=file)
    # One that was written before there was a choice.
    load("usual", data_dir).index.save(file)
    content = json.loads(file.read_text())
    del content["image"], content["label"]
    file.write_text(json.dumps(content))
    assert load("usual", data_dir, index=file).num_train == 32


def test_the_doctor(data_dir, capsys):
    options = ["doctor", "--data", "faces", "--data-dir", str(data_dir), "--json"]
    assert main([*options, "--label", "Smiling"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["classes"]) == ["not Smiling", "Smiling"]
    assert main(options) == 2
    assert "give label, one of attributes/Smiling" in capsys.readouterr().err
