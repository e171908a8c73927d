"""Predictions by weights without a run, with ImageNet's names."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

import keras_mobilenets as km
from keras_mobilenets.__main__ import main
from keras_mobilenets.data import load_image
from keras_mobilenets.models.pretrained import build_pretrained
from keras_mobilenets.models.weights.imagenet import imagenet_names

NAMES = [f"thing_{number}" for number in range(1000)]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Keras' home, in which ImageNet's names lie."""
    folder = tmp_path / "keras"
    (folder / "models").mkdir(parents=True)
    index = {str(number): [f"n{number}", name] for number, name in enumerate(NAMES)}
    (folder / "models" / "imagenet_class_index.json").write_text(json.dumps(index))
    monkeypatch.setenv("KERAS_HOME", str(folder))
    return folder


def network(classes=1000, **settings):
    """Random, and with batch norm that is not the same for all images."""
    keras.utils.set_random_seed(0)
    model = km.build(
        "mobilenet_v1", alpha=0.25, resolution=64, classes=classes, **settings
    )
    random = np.random.default_rng(0)
    for variable in model.weights:
        if variable.path.endswith("gamma"):
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        elif variable.path.endswith("beta"):
            variable.assign(random.normal(0, 0.3, variable.shape))
    noise = random.normal(0, 0.5, (16, *model.input_shape[1:])).astype("float32")
    km.recalibrate(model, [noise])  # or nothing of an image reaches the end
    return model


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize(("classes", "shift"), [(1000, 0), (1001, 1)])
def test_a_file_gives_imagenets_names(classes, shift, photo, tmp_path):
    model = network(classes)
    model.save(tmp_path / "own.keras")
    (result,) = km.predict(photo, weights=tmp_path / "own.keras", resolution=64, top=5)
    image = load_image(photo, 64, km.recipes["slim_v1"])
    scores = model.predict_on_batch(image[None])[0]
    best = np.argsort(-scores)[:5]
    named = ["background"] * shift + [name.replace("_", " ") for name in NAMES]
    assert result["classes"] == [named[number] for number in best]
    assert result["probabilities"] == pytest.approx(scores[best].tolist(), rel=1e-5)
    whole = load_image(photo, 64, km.recipes["quick"])
    assert not np.allclose(image, whole)
    other = km.predict(
        photo, weights=tmp_path / "own.keras", resolution=64, recipe="quick"
    )
    assert other[0]["probabilities"] != result["probabilities"][:3]


def test_imagenet_by_its_word(photo, home, tmp_path, capsys):
    theirs = keras.applications.MobileNet(
        (128, 128, 3), alpha=0.25, weights=None, include_top=True
    )
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    (tmp_path / "theirs.weights.h5").rename(home / "models/mobilenet_2_5_128_tf.h5")
    options = ["--weights", "imagenet", "--name", "mobilenet_v1", "--alpha", "0.25"]
    assert main(["predict", str(photo), *options, "--resolution", "128", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert len(result["classes"]) == 3
    assert all(name.startswith("thing ") for name in result["classes"])


@pytest.mark.parametrize(
    "variant", [{"activation": "relu", "batch_norm_epsilon": 0.01}, {}], ids=str
)
def test_the_file_says_which_network_it_is(variant, tmp_path):
    model = network(1000, channels=1, **variant)
    model.save(tmp_path / "own.keras")
    again, loaded = build_pretrained(tmp_path / "own.keras", resolution=64)
    assert (loaded.network, loaded.alpha) == ("mobilenet_v1", 0.25)
    assert loaded.new == ()
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 1)).astype("float32")
    np.testing.assert_array_equal(
        again.predict_on_batch(images), model.predict_on_batch(images)
    )
    with pytest.raises(km.UsageError, match="it holds MobileNetV1, alpha 0.25"):
        build_pretrained(tmp_path / "own.keras", alpha=0.5)
    with pytest.raises(km.UsageError, match="it holds MobileNetV1, alpha 0.25"):
        build_pretrained(tmp_path / "own.keras", name="mobilenet_v2")


def save(path, classes=7, **settings):
    network(classes, **settings).save(path)
    return path


REFUSED = {
    "other classes": (
        lambda folder: {"weights": save(folder / "own.keras")},
        "ImageNet's 1000 classes, or 1001 .* got 7: a run knows its own",
    ),
    "no classifier": (
        lambda folder: {"weights": save(folder / "own.keras", include_top=False)},
        "a whole network.*no classifier",
    ),
    "PyTorch": (
        lambda folder: {"weights": (folder / "own.safetensors")},
        "images scaled by a mean and a deviation",
    ),
    "no file": (lambda folder: {"weights": "nowhere.keras"}, "not a file"),
    "both": (
        lambda folder: {"weights": "imagenet", "workdir": "run"},
        "give workdir or weights, not both",
    ),
    "alpha of a run": (lambda folder: {"alpha": 0.5}, "alpha is of weights"),
    "a name": (
        lambda folder: {"weights": "imagenet", "name": "resnet"}, "got 'resnet'",
    ),
    "an alpha": (
        lambda folder: {"weights": "imagenet", "alpha": 0.6}, "exist at alpha.*=0.6",
    ),
    "a threshold": (
        lambda folder: {
            "weights": save(folder / "own.keras", 1000), "resolution": 64,
            "threshold": 0.5,
        },
        "threshold is for images that may have several",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_named_is_refused(case, photo, tmp_path, monkeypatch):
    make, message = REFUSED[case]
    (tmp_path / "own.safetensors").write_bytes(b"")
    monkeypatch.setattr(keras.utils, "get_file", no_network)
    with pytest.raises(km.UsageError, match=message):
        km.predict(photo, **make(tmp_path), csv=tmp_path / "said.csv")
    assert not (tmp_path / "said.csv").exists()


def test_a_run_is_no_file_of_weights(run, photo):
    with pytest.raises(km.UsageError, match="knows its classes: give it as workdir"):
        km.predict(photo, weights=run.workdir)


def no_network(*args, **kwargs):
    raise OSError("no route")


def test_names_without_a_network(home, monkeypatch):
    assert imagenet_names(1001)[:2] == ("background", "thing 0")
    file = home / "models" / "imagenet_class_index.json"
    file.write_text('{"0": ["n1", "tench"]}')
    with pytest.raises(
        km.UsageError, match="must be keras.applications' file .*KeyErr"
    ):
        imagenet_names(1000)
    file.unlink()
    monkeypatch.setattr(keras.utils, "get_file", no_network)
    with pytest.raises(
        km.UsageError, match="get http.*index.json elsewhere and put it"
    ) as e:
        imagenet_names(1000)
    assert str(file.parent) in str(e.value)
    assert "\n" not in str(e.value)


def test_predict_refuses_a_threshold_of_classes(run, capsys):
    options = ["predict", str(run.workdir / "samples"), "--workdir", str(run.workdir)]
    assert main([*options, "--threshold", "0.3"]) == 2
    error = capsys.readouterr().err
    assert "threshold is for images that may have several labels; got 0.3" in error
    assert error.count("\n") == 1
