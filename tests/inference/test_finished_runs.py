"""The model of a finished run, as it is read back."""

import shutil

import keras
import numpy as np
import pytest

import keras_mobilenets as km


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"classes": 3}'],
    ids=["empty", "nothing", "list", "null", "classes"],
)
def test_a_damaged_report(run, tmp_path, text):
    copy = tmp_path / "copy"
    shutil.copytree(run.workdir, copy)
    (copy / "report.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"report\.json' (is not of this|cannot be read)"
    ):
        km.evaluate(copy)


def test_weights_that_are_no_numbers_say_nothing(run, tmp_path):
    """0.1.0 answered with probabilities of NaN."""
    copy = tmp_path / "copy"
    shutil.copytree(run.workdir, copy)
    model = keras.saving.load_model(copy / "model.keras")
    model.set_weights([w * np.nan for w in model.get_weights()])
    model.save(copy / "model.keras")
    with pytest.raises(
        ValueError, match=r"model\.keras' holds weights that are no num"
    ):
        km.predict(next((copy / "samples").iterdir()), copy)


def test_a_model_of_other_classes_than_its_report(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run.workdir, copy)
    network = {"alpha": 0.25, "resolution": 32, "shallow": True}
    km.build("mobilenet_v1", classes=20, **network).save(copy / "model.keras")
    with pytest.raises(ValueError, match="must have the 10 classes of its report"):
        km.predict(next((copy / "samples").iterdir()), copy)


def test_a_damaged_model(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run.workdir, copy)
    whole = (copy / "model.keras").read_bytes()
    (copy / "model.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.keras' cannot be read"):
        km.evaluate(copy, verbose=False)
