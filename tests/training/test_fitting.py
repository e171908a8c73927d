"""`train`, on digits, with a network small enough for seconds."""

import csv
import dataclasses
import json
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mobilenets as km
from keras_mobilenets.training import preparing

pytestmark = pytest.mark.usefixtures("few_blocks")

TINY = {
    "alpha": 0.25,
    "resolution": 32,
    "shallow": True,
    "epochs": 1,
    "warmup_epochs": 0,
    "ema_decay": None,
    "weight_decay": 0.0,  # so that the history holds cross entropy alone
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def train(data_dir, tmp_path):
    def train(workdir="run", **settings):
        return km.train(
            "mobilenet_v1",
            workdir=tmp_path / workdir,
            data_dir=data_dir,
            verbose=False,
            **{**TINY, **settings},
        )

    return train


@pytest.fixture(scope="module")
def plain(data_dir, tmp_path_factory):
    """A run with nothing special."""
    return km.train(
        "mobilenet_v1",
        workdir=tmp_path_factory.mktemp("plain"),
        data_dir=data_dir,
        verbose=False,
        **TINY,
    )


def read_history(run):
    with open(run.workdir / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def assert_weights_close(one, other, **tolerance):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def test_run_is_what_lies_in_its_directory(plain):
    model, report, workdir = plain
    stored = json.loads((workdir / "report.json").read_text())
    assert stored == json.loads(json.dumps(report))  # JSON has no tuples
    saved = keras.saving.load_model(workdir / "model.keras", compile=False)
    assert_weights_close(saved, model, rtol=0)
    assert not model.compiled
    assert not [p for p in workdir.rglob("*partial*")]


def test_the_last_row_of_the_history_is_the_reports_validation(plain):
    (row,) = read_history(plain)
    validation = plain.report["validation"]
    assert float(row["val_loss"]) == pytest.approx(validation["loss"], rel=1e-4)
    assert float(row["val_accuracy"]) == pytest.approx(validation["accuracy"])


def test_averages_are_evaluated_and_saved(train, plain):
    """An average that forgets at once is the model; one that does not, is not."""
    at_once = train("at once", ema_decay=1e-9)
    assert_weights_close(at_once.model, plain.model, rtol=1e-5, atol=1e-6)
    slow = train("slow", ema_decay=0.9)
    assert slow.report["weights"] == "averaged"
    assert plain.report["weights"] == "last"
    first, other = slow.model.get_weights()[0], plain.model.get_weights()[0]
    assert np.abs(first - other).max() > 1e-4
    # Averaging does not change the training itself.
    losses = [float(read_history(run)[0]["loss"]) for run in (slow, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    result = km.evaluate(slow.workdir, verbose=False)
    assert result["accuracy"] == pytest.approx(slow.report["test"]["accuracy"])


def test_early_stopping_keeps_the_best_epoch(train):
    # Weights stand still and the statistics are those of each epoch's last batch.
    run = train(
        epochs=40,
        early_stopping_patience=1,
        learning_rate=1e-12,
        batch_norm_momentum=0,
    )
    losses = [float(row["val_loss"]) for row in read_history(run)]
    assert run.report["epochs"] == len(losses) < 40
    assert losses[-1] > min(losses)
    assert run.report["validation"]["loss"] == pytest.approx(min(losses), rel=1e-4)
    assert run.report["weights"] == "best"


def test_background_class(train):
    run = train(background_class=True)
    assert run.report["classes"] == ["background", *map(str, range(10))]
    assert run.model.output_shape == (None, 11)
    assert run.report["cost"]["params"] == run.model.count_params()
    sample = min((run.workdir / "samples").iterdir())
    (answer,) = km.predict(sample, run.workdir, top=11)
    assert set(answer["classes"]) == set(run.report["classes"])
    # Nothing is labelled background, so nothing like an eleventh is given to it.
    background = answer["probabilities"][answer["classes"].index("background")]
    assert background < 1 / 11
    result = km.evaluate(run.workdir, verbose=False)
    assert result["accuracy"] == pytest.approx(run.report["test"]["accuracy"])


def test_weights_to_start_from(train, plain):
    path = plain.workdir / "model.keras"
    run = train("continued", weights=path, learning_rate=1e-12, weight_decay=0)
    assert run.report["initial_weights"] == str(path)
    assert run.report["pretrained"]["new"] == []
    assert plain.report["pretrained"] is None
    for a, b in zip(
        run.model.trainable_weights, plain.model.trainable_weights, strict=True
    ):
        np.testing.assert_allclose(np.array(a), np.array(b), atol=1e-6)


def test_weights_of_another_width(train, plain, tmp_path):
    with pytest.raises(ValueError, match="0.25, 10 classes; asked for alpha 0.5"):
        train(alpha=0.5, weights=plain.workdir / "model.keras")
    assert not (tmp_path / "run").exists()


def test_weights_of_a_run_with_other_classes(data_dir, plain, tmp_path, capsys):
    """Said in a line, and in the report; its body is what the run begins from."""
    run = km.train(
        "mobilenet_v1",
        workdir=tmp_path / "run",
        data_dir=data_dir,
        weights=plain.workdir,
        background_class=True,
        **{**TINY, "learning_rate": 1e-12},
    )
    lines = [li for li in capsys.readouterr().out.splitlines() if "weights from" in li]
    assert len(lines) == 1
    assert "10 classes" in lines[0]
    assert "new and untrained: logits" in lines[0]
    assert run.report["pretrained"] == {
        "file": str(plain.workdir / "model.keras"),
        "kind": "Keras model",
        "network": "mobilenet_v1",
        "alpha": 0.25,
        "classes": 10,
        "layers": 10,
        "new": ["logits"],
        "adapted": ["its classifier is of 10 classes, not 11"],
    }
    for ours, theirs in zip(run.model.layers, plain.model.layers, strict=True):
        if ours.name != "logits" and ours.weights and not ours.name.endswith("_bn"):
            np.testing.assert_allclose(ours.kernel, theirs.kernel, atol=1e-6)


def test_a_learning_rate_that_diverges(train, tmp_path):
    with pytest.raises(km.TrainingDiverged) as caught:
        train(learning_rate=1e30, weight_decay=4e-5)
    message = str(caught.value)
    assert re.search(r"loss became (nan|inf) at step \d+ of epoch 1 ", message)
    assert re.search(r"learning rate [\d.]+e\+\d+", message)
    assert "the images are finite, so the learning rate is the likely cause" in message
    assert "no weights are kept" in message
    assert not (tmp_path / "run" / "report.json").exists()


def test_images_that_are_no_numbers(train, tmp_path, monkeypatch):
    """In the second epoch: its step is named, and the first's weights are kept."""

    def load_data(*arguments, **options):
        splits = km.load_data(*arguments, **options)

        def breaking(dataset, at):
            def batches():
                for step, (images, labels) in enumerate(dataset):
                    yield (images * np.nan if step == at else images), labels

            return tf.data.Dataset.from_generator(
                batches, output_signature=dataset.element_spec
            )

        return dataclasses.replace(
            splits,
            _shuffled=lambda: breaking(splits.train, 3),  # looked at for the cause
            endless=lambda: breaking(splits.endless(), 44 + 3),
        )

    monkeypatch.setattr(preparing, "load_data", load_data)
    with pytest.raises(km.TrainingDiverged) as caught:
        train(epochs=2)
    message = str(caught.value)
    assert "loss became nan at step 4 of epoch 2" in message
    assert "batch 4 of the data holds values that are no numbers" in message
    kept = tmp_path / "run" / "checkpoints" / "step-00000044.npz"
    assert f"the last good state is kept in {kept}" in message
    network = {k: TINY[k] for k in ("alpha", "resolution", "shallow")}
    model = km.build("mobilenet_v1", classes=10, **network)
    km.compile(model, "quick", steps_per_epoch=44, ema_decay=None)
    assert km.restore_checkpoint(model, kept)["epoch"] == 1
    assert all(np.isfinite(w).all() for w in model.get_weights())
    with pytest.raises(ValueError, match="no report.json"):
        km.evaluate(tmp_path / "run")


def test_a_recipe_of_ones_own(train):
    recipe = dataclasses.replace(
        km.recipes["quick"], name="mine", epochs=1, crop_area=(0.9, 1.0)
    )
    run = train(recipe=recipe)
    assert run.report["recipe"]["name"] == "mine"
    result = km.evaluate(run.workdir, verbose=False)
    assert result["accuracy"] == pytest.approx(run.report["test"]["accuracy"])


@pytest.mark.filterwarnings("ignore:batch_norm_momentum")
def test_a_folder_has_the_authors_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name, level in (("bright", 200), ("dark", 20)):
        folder = tmp_path / "shades" / name
        folder.mkdir(parents=True)
        for number in range(30):
            pixels = level + random.integers(0, 20, (8, 8, 3))
            keras.utils.save_img(folder / f"{number}.png", pixels, scale=False)
    run = km.train(
        "mobilenet_v1", data=pathlib.Path("shades"), batch_size=8, verbose=False, **TINY
    )
    assert run.workdir == pathlib.Path("runs/shades-1")
    assert run.report["recipe"]["name"] == "slim_v1"
    assert run.report["classes"] == ["background", "bright", "dark"]
    # Found again from elsewhere, and not mistaken for a dataset of that name.
    assert run.report["data"] == str(tmp_path / "shades")
    monkeypatch.chdir("/")
    result = km.evaluate(tmp_path / run.workdir, verbose=False)
    assert result["images"] == run.report["images"]["test"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "mobilnet_v1"}, "name must .* did you mean 'mobilenet_v1'"),
        ({"alpha": 0}, "alpha must .* got 0"),
        ({"alpha": float("nan")}, "alpha must .* got nan"),
        ({"rho": 0.5, "resolution": 112}, "not both"),
        ({"resolution": 31}, "resolution must .* got 31"),
        ({"recipe": "slim"}, "recipe must .* got 'slim'"),
        ({"recipe": 3}, "recipe must .* got 3"),
        ({"epochs": 0}, "epochs must .* got 0"),
        ({"learning_rate": -0.1}, "learning_rate must .* got -0.1"),
        ({"ema_decay": 1}, "ema_decay must .* got 1"),
        ({"learnig_rate": 0.1}, "did you mean 'learning_rate'"),
        ({"width_mult": 0.5}, "use alpha"),
        ({"expansion": 4}, "expansion is a variation of mobilenet_v2"),
        ({"output_stride": 3}, "output_stride must .* got 3"),
        ({"seed": 0.5}, "seed must .* got 0.5"),
    ],
)
def test_impossible_settings_are_told_before_anything_happens(
    settings, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        preparing, "load_data", lambda *_, **__: pytest.fail("too late")
    )
    with pytest.raises(ValueError, match=message):
        km.train(**{"name": "mobilenet_v1", **settings})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("data", [3, None, ""])
def test_data_of_another_kind(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="source must be 'digits'"):
        km.train(data=data)
    assert not list(tmp_path.iterdir())


def test_a_directory_in_use(plain, monkeypatch):
    monkeypatch.setattr(
        preparing, "load_data", lambda *_, **__: pytest.fail("too late")
    )
    with pytest.raises(ValueError, match="exists and is not empty.*new directory"):
        km.train(workdir=plain.workdir)


def test_a_directory_that_cannot_be_made(train, tmp_path):
    (tmp_path / "file").write_text("of the user")
    with pytest.raises(ValueError, match="workdir must be a directory that can be"):
        train("file/run")
    assert (tmp_path / "file").read_text() == "of the user"


def test_arguments_of_load_data(train):
    """A share of the digits, evaluated on that share again."""
    run = train(splits={"train": "train[:50%]", "test": "test[:50%]"}, threads=1)
    assert run.report["images"] == {"train": 718, "validation": 180, "test": 90}
    result = km.evaluate(run.workdir, verbose=False)
    assert result["images"] == 90
    assert result["accuracy"] == pytest.approx(run.report["test"]["accuracy"])


def test_broken_files_may_be_fatal(train, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(40):
            grey = np.full((8, 8, 3), number)
            file = tmp_path / "photos" / name / f"{number}.png"
            keras.utils.save_img(file, grey, scale=False)
    (tmp_path / "photos" / "cat" / "note.jpg").write_text("not an image")
    with pytest.raises(ValueError, match="note.jpg"):
        train(data=tmp_path / "photos", recipe="quick", broken="fail")
    assert not (tmp_path / "run").exists()
