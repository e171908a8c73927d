"""timm and torchvision: names, layout, padding, epsilon; against their own logits."""

import numpy as np
import pytest

import keras_mobilenets as km
from keras_mobilenets.models import load_weights
from tests import pytorch
from tests.models.weights.networks import assert_same_outputs

CASES = sorted(path.stem for path in pytorch.FOLDER.glob("*.json"))
AS_THEIRS = {"padding": "symmetric", "batch_norm_epsilon": 1e-5}


def network(case):
    _, version, alpha, resolution = case.split("_")
    return {
        "name": f"mobilenet_{version}",
        "alpha": float(alpha),
        "resolution": int(resolution),
        "classifier_activation": None,
    }


@pytest.mark.parametrize("case", CASES)
def test_logits_are_theirs(tmp_path, case):
    state, expected = pytorch.load(case)
    pytorch.save_safetensors(tmp_path / "a.safetensors", state)
    model = km.build(classes=10, **network(case), **AS_THEIRS)
    loaded = load_weights(model, tmp_path / "a.safetensors")
    assert loaded.kind == f"safetensors of {case.split('_')[0]}"
    assert (loaded.new, loaded.adapted) == ((), ())
    assert (loaded.alpha, loaded.classes) == (network(case)["alpha"], 10)
    x = pytorch.images(model.input_shape[1])
    assert_same_outputs(np.array(model(x, training=False)), expected)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("pytorch") / "a.safetensors"
    pytorch.save_safetensors(path, pytorch.load("timm_v1_0.25_64")[0])
    return path


@pytest.mark.parametrize(
    "given", [{}, *({k: v} for k, v in AS_THEIRS.items())], ids=str
)
def test_tensorflows_padding_or_epsilon_is_refused(file, given):
    """Outputs would be others, and look right."""
    variant = {name: AS_THEIRS[name] for name in given}
    with pytest.raises(km.UsageError, match="here has .*Build it with") as caught:
        km.build("mobilenet_v1", alpha=0.25, resolution=64, weights=file, **variant)
    advice = str(caught.value).split("Build it with ")[1]
    wanted = {k: v for k, v in AS_THEIRS.items() if k not in given}
    assert advice == ", ".join(f"{k}={v!r}" for k, v in wanted.items())


def test_other_classes_and_other_networks(file):
    with pytest.warns(UserWarning, match="untrained: logits"):
        km.build("mobilenet_v1", alpha=0.25, resolution=64, weights=file, **AS_THEIRS)
    with pytest.raises(km.UsageError, match="V1, alpha 0.25, 10 .*for alpha 0.5"):
        km.build("mobilenet_v1", alpha=0.5, resolution=64, weights=file, **AS_THEIRS)
    with pytest.raises(km.UsageError, match="asked for MobileNetV2"):
        km.build("mobilenet_v2", resolution=64, weights=file, **AS_THEIRS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.5.0.conv_dw.weight", "asked for none with block_14_depthwise"),
        ("blocks.1.0.se.conv_reduce.weight", "names of a MobileNetV1 or V2 .* se.conv"),
        ("conv_stem.scale", "it has a conv_stem.scale"),
    ],
)
def test_tensors_that_these_networks_have_not(tmp_path, name, message):
    state, _ = pytorch.load("timm_v1_0.25_64")
    state[name] = np.ones((3, 1, 3, 3), "float32")
    pytorch.save_safetensors(tmp_path / "a.safetensors", state)
    model = km.build("mobilenet_v1", alpha=0.25, resolution=64, classes=10, **AS_THEIRS)
    with pytest.raises(km.UsageError, match=message):
        load_weights(model, tmp_path / "a.safetensors")


def test_another_network_of_pytorch(tmp_path):
    state = {"layer1.0.conv1.weight": np.ones((3, 1, 3, 3), "float32")}
    pytorch.save_safetensors(tmp_path / "a.safetensors", state)
    with pytest.raises(km.UsageError, match="names of a MobileNet.* layer1.0.conv1"):
        km.build(weights=tmp_path / "a.safetensors", **AS_THEIRS)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_symmetric_padding_keeps_names_sizes_and_costs(name):
    options = {"alpha": 0.25, "resolution": 33, "classes": 3, "output_stride": 16}
    same = km.build(name, **options)
    symmetric = km.build(name, **options, padding="symmetric")
    for one, other in zip(same.weights, symmetric.weights, strict=True):
        assert (one.path, one.shape) == (other.path, other.shape)
    sizes = {layer.name: layer.output.shape for layer in symmetric.layers}
    assert {layer.name: sizes[layer.name] for layer in same.layers} == {
        layer.name: layer.output.shape for layer in same.layers
    }
    cost = km.cost(name, **options)
    assert km.cost(name, **options, padding="symmetric").macs == cost.macs
    with pytest.raises(km.UsageError, match="padding must be one of 'same', 'symm"):
        km.build(name, padding="valid")
