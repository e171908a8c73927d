"""keras.applications: its files in every layout, and its ImageNet weights."""

import functools
import http.server
import threading

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

import keras_mobilenets as km
from keras_mobilenets.models import load_weights
from keras_mobilenets.models.weights import applications
from tests.models.weights.networks import assert_same_outputs, outputs, randomize

THEIRS = {
    "mobilenet_v1": keras.applications.MobileNet,
    "mobilenet_v2": keras.applications.MobileNetV2,
}


def theirs(name, alpha, resolution, **options):
    options = {"classes": 10, "classifier_activation": None, **options}
    shape = (resolution, resolution, 3)
    make = THEIRS[name]
    return randomize(make(input_shape=shape, alpha=alpha, weights=None, **options))


def save_by_name(model, path):
    """As the published files are."""
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)


SAVE = {
    "a.keras": lambda model, path: model.save(path),
    "a.weights.h5": lambda model, path: model.save_weights(path),
    "whole.h5": lambda model, path: model.save(path),
    "by_name.h5": save_by_name,
}


# V1 at sizes that are no multiples of 32 is padded there otherwise than by its authors.
@pytest.mark.parametrize(
    ("name", "alpha", "resolution"),
    [
        ("mobilenet_v1", 0.25, 64),
        ("mobilenet_v1", 0.5, 96),
        ("mobilenet_v2", 0.35, 65),
        ("mobilenet_v2", 1.3, 64),
    ],
)
def test_logits_are_those_of_the_file(tmp_path, name, alpha, resolution):
    source = theirs(name, alpha, resolution)
    expected = outputs(source)
    ours = km.build(
        name, alpha=alpha, resolution=resolution, classes=10, classifier_activation=None
    )
    for file, save in SAVE.items():
        save(source, tmp_path / file)
        loaded = load_weights(randomize(ours, seed=9), tmp_path / file)
        assert (loaded.alpha, loaded.classes, loaded.new) == (alpha, 10, ())
        assert loaded.adapted == ()
        assert_same_outputs(outputs(ours), expected)


@pytest.mark.parametrize("name", THEIRS)
def test_the_network_nested_in_a_model_of_ones_own(tmp_path, name):
    body = theirs(name, 0.25 if name.endswith("1") else 0.35, 64, include_top=False)
    mine = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            keras.layers.RandomFlip(),
            keras.layers.Rescaling(1.0),
            body,
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, name="mine"),
        ]
    )
    mine.compile("sgd", "mse")  # an optimizer in the file too
    ours = km.build(
        name,
        alpha=0.25 if name.endswith("1") else 0.35,
        resolution=64,
        include_top=False,
    )
    for file in ("mine.keras", "mine.weights.h5", "mine.h5"):
        (mine.save_weights if "weights" in file else mine.save)(tmp_path / file)
        loaded = load_weights(randomize(ours, seed=9), tmp_path / file)
        assert loaded.adapted == ("left out of the file: mine",)
        assert_same_outputs(outputs(ours), outputs(body))


def test_names_of_old_files_do_not_matter(tmp_path):
    """V2's published files have other names than the code: they go by order."""
    source = theirs("mobilenet_v2", 0.35, 64)
    with h5py.File(tmp_path / "old.h5", "w") as file:
        layers = [layer for layer in source.layers if layer.weights]
        names = [f"mobl{number}" for number in range(len(layers))]
        file.attrs["layer_names"] = [name.encode() for name in names]
        for name, layer in zip(names, layers, strict=True):
            group = file.create_group(name)
            weights = {f"{name}/{v.name}:0": np.array(v) for v in layer.weights}
            group.attrs["weight_names"] = [key.encode() for key in weights]
            for key, value in weights.items():
                group[key] = value
    ours = km.build(alpha=0.35, resolution=64, classes=10, classifier_activation=None)
    assert load_weights(ours, tmp_path / "old.h5").new == ()
    assert_same_outputs(outputs(ours), outputs(source))


def test_another_alpha_is_named(tmp_path):
    save_by_name(theirs("mobilenet_v2", 0.5, 32), tmp_path / "half.h5")
    with pytest.raises(
        km.UsageError, match="MobileNetV2, alpha 0.5, 10 classes; asked for alpha 0.35"
    ):
        km.build(alpha=0.35, resolution=32, weights=tmp_path / "half.h5")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Keras' downloads come from a folder that is served here: (folder, requests)."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(applications, "URL", url)
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        yield folder, asked
        server.shutdown()


V1_FILE = "mobilenet/mobilenet_2_5_128_tf.h5"


def serve(folder, path, model):
    (folder / path).parent.mkdir(exist_ok=True)
    save_by_name(model, folder / path)


def test_imagenet_weights(server):
    folder, asked = server
    source = theirs("mobilenet_v1", 0.25, 128, classes=1000)
    serve(folder, V1_FILE, source)
    network = {"alpha": 0.25, "resolution": 128, "classifier_activation": None}
    for _ in range(2):
        ours = km.build("mobilenet_v1", weights="imagenet", **network)
        assert_same_outputs(outputs(ours), outputs(source))
    assert asked == [f"/{V1_FILE}"]  # the second time it is here


def test_imagenet_weights_for_other_classes_and_sizes(server):
    folder, asked = server
    body = theirs("mobilenet_v2", 1.4, 96, include_top=False)
    path = (
        "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.4_224_no_top.h5"
    )
    serve(folder, path, body)
    with pytest.warns(UserWarning, match=r"untrained: logits.*none of 96 pixels.*224"):
        km.build(alpha=1.4, resolution=96, classes=5, weights="imagenet")
    assert asked == [f"/{path}"]


def test_imagenet_weights_that_cannot_be_had(server, tmp_path):
    with pytest.raises(
        km.UsageError,
        match=f"get http.*/{V1_FILE} elsewhere and put it into {tmp_path}/models",
    ):
        km.build("mobilenet_v1", alpha=0.25, resolution=128, weights="imagenet")
    assert not list((tmp_path / "models").iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 0.6}, "exist at alpha 0.35, 0.5, 0.75, 1.0, 1.3, 1.4"),
        ({"name": "mobilenet_v1", "alpha": 0.3}, "exist at alpha 0.25, 0.5, 0.75, 1.0"),
        ({"expansion": 4}, "variation with other layers"),
        ({"name": "mobilenet_v1", "shallow": True}, "variation with other layers"),
        ({"activation": "relu"}, "activation='relu6'"),
        ({"padding": "symmetric"}, "padding='same'"),
        ({"shortcut": "none"}, "shortcut='bottleneck'"),
        ({"batch_norm_epsilon": 1e-5}, "batch_norm_epsilon=0.001"),
    ],
)
def test_what_was_never_published_is_refused_before_any_download(
    server, arguments, message
):
    with pytest.raises(km.UsageError, match=message):
        km.build(**{"resolution": 32, **arguments}, weights="imagenet")
    assert server[1] == []
