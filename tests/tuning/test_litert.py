"""Networks as LiteRT runs them: real files, real digits, what a search must not see."""

import dataclasses
import json

import numpy as np
import pytest

import keras_mobilenets as km
from keras_mobilenets.data import Splits
from keras_mobilenets.deploy import read_classifier
from keras_mobilenets.tuning import litert
from tests.deploy.networks import randomize


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    return km.load_data("digits", resolution=32, data_dir=tmp_path_factory.mktemp("d"))


@pytest.fixture(scope="module")
def model(few_blocks):
    return randomize(km.build("mobilenet_v1", alpha=0.25, resolution=32, classes=10))


def report_in(folder):
    return json.loads((folder / f"{litert.FILE}.json").read_text())


def test_accuracy_is_that_of_the_file_on_every_validation_image(
    splits, model, tmp_path
):
    accuracy = litert.measure_accuracy(model, splits, tmp_path)
    numbers = range(splits.num_validation)
    images = np.stack(splits.images("validation", numbers))
    logits, _ = read_classifier(tmp_path / litert.FILE).classify(images)
    right = logits.argmax(-1) == splits.labels("validation", numbers)
    assert accuracy == right.mean()
    report = report_in(tmp_path)
    assert report["quantization"] == "int8"
    assert report["calibration"]["images"] == 128
    assert report["proof"]["source"] == "digits (validation split)"
    assert report["proof"]["agreement"] > 0.9  # of a network that tells images apart


def test_the_test_split_is_not_looked_at(splits, model, tmp_path, monkeypatch):
    seen = set()

    def look(self, split, numbers, method):
        seen.add(split)
        return method(self, split, numbers)

    for name in ("images", "labels"):
        method = getattr(Splits, name)
        monkeypatch.setattr(
            Splits, name, lambda s, split, n, method=method: look(s, split, n, method)
        )
    fresh = dataclasses.replace(splits)
    litert.measure_accuracy(model, fresh, tmp_path)
    assert seen == {"train", "validation"}
    assert "test" not in vars(fresh)  # its batches were never made


def test_a_file_that_says_something_else_is_what_it_is(splits, model, tmp_path):
    """A class that never wins takes the range, so that the others cannot be told."""
    wide = km.build("mobilenet_v1", alpha=0.25, resolution=32, classes=10)
    wide.set_weights(model.get_weights())
    bias = wide.get_layer("logits").bias
    bias.assign([*np.asarray(bias)[:9], -5000.0])
    (tmp_path / "model_int8.rejected-1.tflite").write_text("of a killed trial")
    (tmp_path / litert.FILE).write_text("of a lower rung")
    accuracy = litert.measure_accuracy(wide, splits, tmp_path)
    proof = report_in(tmp_path)["proof"]
    assert proof["agreement"] < 0.9
    assert proof["accuracy"] == accuracy
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        litert.FILE,
        f"{litert.FILE}.json",
    ]


def test_a_file_without_numbers_fails(splits, model, tmp_path, monkeypatch):
    """No network is known whose file says NaN, so the runtime is made to."""

    def without_numbers(path, threads):
        classifier = litert_read(path, threads)
        return dataclasses.replace(
            classifier,
            classify=lambda images: tuple(
                np.full_like(each, np.nan) for each in classifier.classify(images)
            ),
        )

    from keras_mobilenets.deploy import exporting, formats

    form = formats.FORMATS[".tflite"]
    litert_read = form.read
    monkeypatch.setattr(
        exporting, "format_of", lambda file: form._replace(read=without_numbers)
    )
    with pytest.raises(km.ExportFailed, match="NaN or infinity"):
        litert.measure_accuracy(model, splits, tmp_path)
    assert not (tmp_path / litert.FILE).exists()
    assert (tmp_path / "model_int8.rejected-1.tflite").exists()


@pytest.mark.parametrize("quantization", [None, "int8"], ids=["float32", "int8"])
def test_latency_grows_with_the_network(few_blocks, quantization):
    small, large = (
        litert.measure_latency(
            ("mobilenet_v1", alpha, resolution), 10, {"channels": 1}, quantization
        )
        for alpha, resolution in ((0.25, 32), (1.0, (160, 192)))  # by 300
    )
    assert 0 < small < large / 5


def test_what_is_timed_computes_with_numbers(monkeypatch):
    """As a trained network does: its layers neither die away nor grow."""
    reports = []

    def export(*arguments, **options):
        reports.append(litert_export(*arguments, **options))
        return reports[-1]

    litert_export = litert.export_model
    monkeypatch.setattr(litert, "export_model", export)
    ms = litert.measure_latency(("mobilenet_v2", 0.35, 32), 10, {}, None)
    (report,) = reports
    assert report["latency"]["median_ms"] == ms
    assert report["latency"]["threads"] == report["latency"]["batch"] == 1
    low, high = report["proof"]["logits"]
    assert 0.01 < high - low < 100
