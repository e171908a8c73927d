import numpy as np
import pytest

import keras_mobilenets as km
from keras_mobilenets.models.weights.setting import set_stored
from keras_mobilenets.models.weights.stored import Stored
from tests.models.weights.networks import outputs, randomize

pytestmark = pytest.mark.usefixtures("few_blocks")


@pytest.fixture(scope="module")
def model(few_blocks):
    return randomize(km.build("mobilenet_v1", alpha=0.25, resolution=32, classes=3))


def stored_of(model, **fields):
    layers = {
        layer.name: {v.name: np.array(v) for v in layer.weights}
        for layer in model.layers
        if layer.weights
    }
    return Stored("test", layers, **fields)


def test_copying_a_list_is_all_or_nothing(model):
    before = model.get_weights()
    wrong = [*[w + 1 for w in before[:-1]], np.zeros(99)]
    with pytest.raises(km.UsageError, match=r"logits/bias must have shape \(3,\)"):
        km.copy_weights(model, wrong)
    with pytest.raises(km.UsageError, match="another architecture"):
        km.copy_weights(model, before[:-1])
    values = [w.astype("O") for w in before]
    values[0].flat[0] = "x"
    with pytest.raises(km.UsageError, match="stem/kernel must be finite"):
        km.copy_weights(model, values)
    for other in (None, 3, "x", object(), iter(before)):
        with pytest.raises(km.UsageError, match="weights must be a list of arrays"):
            km.copy_weights(model, other)
        with pytest.raises(km.UsageError, match="model must be a keras.Model"):
            km.copy_weights(other, before)
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_background_is_dropped_only_where_it_is_known(model):
    source = km.build("mobilenet_v1", alpha=0.25, resolution=32, classes=4)
    stored = stored_of(randomize(source, seed=2), background=True)
    loaded = set_stored(model, stored, "here")
    assert loaded.new == ()
    assert loaded.adapted == ("class 0, the background, was dropped",)
    kernel = np.array(source.get_layer("logits").kernel)
    np.testing.assert_array_equal(model.get_layer("logits").kernel, kernel[:, 1:])
    loaded = set_stored(model, stored._replace(background=False), "here")
    assert loaded.new == ("logits",)


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5])
def test_folded_batch_norm_gives_the_same_outputs(epsilon):
    """gamma / sqrt(variance + epsilon) into the kernels, by hand."""
    network = {"alpha": 0.25, "resolution": 32, "classes": 3}
    network["batch_norm_epsilon"] = epsilon
    source = randomize(km.build("mobilenet_v1", **network))
    layers = stored_of(source).layers
    folded = {}
    for name, values in layers.items():
        norm = layers.get(f"{name}_bn")
        if norm is not None:
            scale = norm["gamma"] / np.sqrt(norm["moving_variance"] + epsilon)
            by = scale[:, None] if name.endswith("depthwise") else scale
            bias = norm["beta"] - norm["moving_mean"] * scale
            folded[name] = {"kernel": values["kernel"] * by, "bias": bias}
        elif not name.endswith("_bn"):
            folded[name] = values
    target = km.build("mobilenet_v1", **network)
    set_stored(target, Stored("folded", folded), "here")
    np.testing.assert_allclose(outputs(target), outputs(source), atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "message"), [(1, "summed over red"), (4, "zeros for alpha")]
)
def test_a_file_of_rgb_into_networks_of_other_images(
    model, channels, message, tmp_path
):
    model.save(tmp_path / "rgb.keras")
    network = {"alpha": 0.25, "resolution": (32, 48), "classes": 3}
    with pytest.warns(UserWarning, match=f"layers loaded.*{message}"):
        ours = km.build(
            "mobilenet_v1", weights=tmp_path / "rgb.keras", channels=channels, **network
        )
    same = km.build("mobilenet_v1", weights=tmp_path / "rgb.keras", **network)
    x = np.random.default_rng(0).uniform(-1, 1, (4, 32, 48, 4)).astype("float32")
    if channels == 1:
        x[..., 1:3] = x[..., :1]
    expected = np.array(same(x[..., :3]))
    assert expected.std(axis=0).max() > 1e-3
    np.testing.assert_allclose(ours(x[..., :channels]), expected, atol=1e-5)
    before = model.get_weights()
    with pytest.raises(km.UsageError, match=r"first convolution has shape \(3, 3, "):
        set_stored(model, stored_of(ours), "here")
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(
    ("layer", "values", "message"),
    [
        ("stem_bn", {"gamma": np.ones(8)}, "it has no stem_bn/beta"),
        ("more", {"kernel": np.ones(8)}, "asked for one without more"),
        ("logits", {"kernel": np.ones((9, 3)), "bias": np.ones(3)}, r"logits/kernel"),
        ("stem", {"kernel": np.ones(3)}, "its first convolution has shape"),
    ],
    ids=["too few", "another layer", "another width", "no convolution"],
)
def test_odd_files_change_nothing(model, layer, values, message):
    before = model.get_weights()
    stored = stored_of(randomize(km.build("mobilenet_v1", alpha=0.25, resolution=32)))
    stored.layers["logits"] = {"kernel": np.ones((32, 3)), "bias": np.ones(3)}
    stored.layers[layer] = values
    with pytest.raises(km.UsageError, match=f"'here' does not fit.*{message}"):
        set_stored(model, stored, "here")
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
