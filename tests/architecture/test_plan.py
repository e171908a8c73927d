import pytest

from keras_mobilenets.architecture import make_plan
from keras_mobilenets.architecture.plan import IMAGE
from tests.data import read

V2_CHANNELS = read("recomputed_costs")["v2_channels"]


def named(plan):
    return {layer.name: layer for layer in plan}


@pytest.mark.parametrize("alpha", V2_CHANNELS)
def test_v2_channels(alpha):
    expected = V2_CHANNELS[alpha]
    plan = make_plan("mobilenet_v2", alpha=float(alpha))
    layers = named(plan)
    assert layers["stem"].channels_out == expected["conv0"]
    assert layers["top"].channels_out == expected["last_conv_finegrain"]
    repeats = (1, 2, 3, 4, 3, 3, 1)
    channels = [
        c
        for c, n in zip(expected["bottlenecks"], repeats, strict=True)
        for _ in range(n)
    ]
    projected = [p.channels_out for p in plan if p.name.endswith("_project")]
    assert projected == channels


@pytest.mark.parametrize(
    ("alpha", "first", "last"),
    # int(channels * alpha), at least 8
    [(1.0, 32, 1024), (0.75, 24, 768), (0.35, 11, 358), (0.1, 8, 102), (0.02, 8, 20)],
)
def test_v1_channels_are_truncated(alpha, first, last):
    layers = named(make_plan("mobilenet_v1", alpha=alpha))
    assert layers["stem"].channels_out == first
    assert layers["block_13_project"].channels_out == last


def test_names_of_v1():
    names = [layer.name for layer in make_plan("mobilenet_v1")]
    blocks = [
        f"block_{k}_{part}" for k in range(1, 14) for part in ("depthwise", "project")
    ]
    assert names == ["stem", *blocks, "pool", "dropout", "logits"]


def test_names_of_v2():
    names = [layer.name for layer in make_plan("mobilenet_v2")]
    residual = {3, 5, 6, 8, 9, 10, 12, 13, 15, 16}
    blocks = []
    for k in range(1, 18):
        parts = ["depthwise", "project"]
        if k > 1:  # t = 1 has nothing to expand
            parts.insert(0, "expand")
        if k in residual:
            parts.append("add")
        blocks += [f"block_{k}_{part}" for part in parts]
    assert names == ["stem", *blocks, "top", "pool", "dropout", "logits"]


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
@pytest.mark.parametrize("variant", [{}, {"output_stride": 8}, {"include_top": False}])
@pytest.mark.parametrize("resolution", [224, 97, 32, (96, 160), (97, 33)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_layers_fit_together(name, resolution, channels, variant):
    seen = {IMAGE: (resolution, channels)}
    shape = {"resolution": resolution, "channels": channels}
    for layer in make_plan(name, **shape, **variant):
        assert layer.name not in seen
        for source in layer.inputs:
            assert seen[source] == (layer.size_in, layer.channels_in)
        seen[layer.name] = (layer.size_out, layer.channels_out)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
@pytest.mark.parametrize(
    ("resolution", "sizes"),
    # SAME padding: every stride 2 halves and rounds up
    [
        (224, [112, 56, 28, 14, 7]),
        (225, [113, 57, 29, 15, 8]),
        (144, [72, 36, 18, 9, 5]),
        (97, [49, 25, 13, 7, 4]),
        (33, [17, 9, 5, 3, 2]),
        (32, [16, 8, 4, 2, 1]),
        ((96, 160), [(48, 80), (24, 40), (12, 20), (6, 10), (3, 5)]),
        ((33, 34), [17, 9, 5, 3, 2]),  # square once both sides are
        ((256, 32), [(128, 16), (64, 8), (32, 4), (16, 2), (8, 1)]),
    ],
)
def test_same_padding(name, resolution, sizes):
    plan = make_plan(name, resolution=resolution, include_top=False)
    assert [p.size_out for p in plan if p.stride == 2] == sizes
    assert plan[-1].size_out == sizes[-1]


def test_rho_is_resolution():
    for rho, resolution in [(0.857, 192), (0.714, 160), (0.571, 128), (1, 224)]:
        assert make_plan(rho=rho) == make_plan(resolution=resolution)
    assert make_plan() == make_plan("mobilenet_v2", alpha=1.0, resolution=224)


@pytest.mark.parametrize(
    ("name", "output_stride", "dilated"),
    # As slim: the block that would have halved the map keeps it and does not
    # dilate yet; those after it do, and each further stride doubles the rate.
    [
        ("mobilenet_v1", 32, {}),
        ("mobilenet_v1", 16, {13: 2}),
        ("mobilenet_v1", 8, dict.fromkeys(range(7, 13), 2) | {13: 4}),
        ("mobilenet_v2", 32, {}),
        ("mobilenet_v2", 16, {15: 2, 16: 2, 17: 2}),
        (
            "mobilenet_v2",
            8,
            dict.fromkeys(range(8, 15), 2) | dict.fromkeys(range(15, 18), 4),
        ),
    ],
)
def test_output_stride_dilates(name, output_stride, dilated):
    plan = make_plan(name, output_stride=output_stride, include_top=False)
    found = {int(p.name.split("_")[1]): p.dilation for p in plan if p.dilation > 1}
    assert found == dilated
    assert all(p.stride == 1 for p in plan if p.dilation > 1)
    assert plan[-1].size_out == 224 // output_stride
    assert min(p.size_out for p in plan) == 224 // output_stride


def test_output_stride_of_full_convolutions():
    plan = make_plan("mobilenet_v1", separable=False, output_stride=16)
    layer = named(plan)["block_13_conv"]
    assert (layer.kind, layer.dilation, layer.size_out) == ("conv", 2, 14)


@pytest.mark.parametrize("output_stride", [2, 4, 8, 16, None])
def test_output_stride_keeps_the_weights(output_stride):
    def shapes(plan):
        return [(p.name, p.kind, p.kernel, p.channels_in, p.channels_out) for p in plan]

    for name in ("mobilenet_v1", "mobilenet_v2"):
        dense = make_plan(name, output_stride=output_stride)
        assert shapes(dense)[:-3] == shapes(make_plan(name))[:-3]


def test_ten_of_seventeen_blocks_are_residual():
    plan = make_plan("mobilenet_v2")
    layers = named(plan)
    adds = [p for p in plan if p.kind == "add"]
    assert len(adds) == 10
    assert len([p for p in plan if p.name.endswith("_project")]) == 17
    for add in adds:
        source, project = add.inputs
        assert project == add.name.replace("_add", "_project")
        # The shortcut starts at the end of the block before.
        k = int(add.name.split("_")[1])
        assert source in (f"block_{k - 1}_project", f"block_{k - 1}_add")
        assert layers[source].channels_out == add.channels_out
        assert add.activation is None


@pytest.mark.parametrize("alpha", [0.35, 0.75])
def test_rounding_makes_no_shortcut_between_rows_of_the_table(alpha):
    # At 0.75 the rows of 24 and 32 channels both have 24, at 0.35 the first two
    # rows both have 8; the stride 2 between them still rules a shortcut out.
    adds = [p for p in make_plan(alpha=alpha) if p.kind == "add"]
    assert len(adds) == 10


def test_linear_bottleneck():
    linear = {
        p.activation for p in make_plan("mobilenet_v2") if p.name.endswith("_project")
    }
    nonlinear = {
        p.activation
        for p in make_plan("mobilenet_v2", linear_bottleneck=False)
        if p.name.endswith("_project")
    }
    assert (linear, nonlinear) == ({None}, {"relu6"})


def test_shortcut_none_only_removes_the_additions():
    plain = make_plan("mobilenet_v2", shortcut="none")
    residual = make_plan("mobilenet_v2")
    assert [p.name for p in plain] == [p.name for p in residual if p.kind != "add"]
    assert all(p.kind != "add" for p in plain)


def test_shortcut_between_expansions():
    plan = make_plan("mobilenet_v2", shortcut="expansion")
    layers = named(plan)
    adds = [p for p in plan if p.kind == "add"]
    assert len(adds) == 10  # one for one beside the shortcuts between bottlenecks
    for add in adds:
        k = int(add.name.split("_")[1])
        assert add.inputs[1] == f"block_{k}_expand"
        assert add.inputs[0] in (f"block_{k - 1}_expand", f"block_{k - 1}_add")
        wide = layers[add.inputs[0]]
        assert (wide.size_out, wide.channels_out) == (add.size_in, add.channels_out)
        assert layers[f"block_{k}_depthwise"].inputs == (add.name,)


@pytest.mark.parametrize("expansion", [2, 3, 4.5, 10])
def test_expansion(expansion):
    layers = named(make_plan("mobilenet_v2", expansion=expansion))
    assert layers["block_2_expand"].channels_out == expansion * 16
    assert layers["block_17_expand"].channels_out == expansion * 160
    assert "block_1_expand" not in layers


def test_expansion_of_one_expands_nothing():
    names = named(make_plan("mobilenet_v2", expansion=1))
    assert not [name for name in names if name.endswith("_expand")]


def test_v1_variants():
    assert len(make_plan("mobilenet_v1", shallow=True)) == 30 - 2 * 5
    full = make_plan("mobilenet_v1", separable=False)
    assert not [p for p in full if p.kind == "depthwise"]
    assert [p.kernel for p in full if p.kind == "conv"] == [3] * 14


@pytest.mark.parametrize("activation", ["relu6", "relu"])
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_activation(name, activation):
    used = {p.activation for p in make_plan(name, activation=activation)}
    assert used == {activation, None}


def test_endings():
    def end(**settings):
        return [
            (p.name, p.kind, p.size_out, p.channels_out)
            for p in make_plan("mobilenet_v2", **settings)[-4:]
        ]

    assert end(classes=7)[1:] == [
        ("pool", "avg_pool", 1, 1280),
        ("dropout", "dropout", 1, 1280),
        ("logits", "dense", 1, 7),
    ]
    assert end(include_top=False)[-1] == ("top", "conv", 7, 1280)
    assert end(include_top=False, pooling="avg")[-1] == ("pool", "avg_pool", 1, 1280)
    assert end(include_top=False, pooling="max")[-1] == ("pool", "max_pool", 1, 1280)


def test_convolutions_have_batch_norm_and_the_classifier_has_none():
    for name in ("mobilenet_v1", "mobilenet_v2"):
        for layer in make_plan(name):
            assert layer.batch_norm == (layer.kind in ("conv", "depthwise"))
