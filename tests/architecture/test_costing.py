import json
import time

import pytest

from keras_mobilenets.architecture import Layer, cost, make_plan, plan_cost
from keras_mobilenets.errors import UsageError
from tests.data import read

RECOMPUTED = read("recomputed_costs")
POINTS = [
    pytest.param(name, *row, id=f"{name}-{row[0]}-{row[1]}")
    for name in ("mobilenet_v1", "mobilenet_v2")
    for row in RECOMPUTED[name]["rows"]
]


def test_all_published_points_are_there():
    assert len(POINTS) == 16 + 22


@pytest.mark.parametrize(
    ("name", "alpha", "resolution", "macs", "kernels", "trainable", "total"), POINTS
)
def test_costs_to_the_unit(name, alpha, resolution, macs, kernels, trainable, total):
    ours = cost(name, alpha=alpha, resolution=resolution, classes=1001)
    assert (ours.macs, ours.trainable_params, ours.params) == (macs, trainable, total)
    assert ours.trainable_params - (ours.params - ours.trainable_params) == kernels


@pytest.mark.parametrize(
    ("variant", "row"),
    [
        ({"separable": False}, RECOMPUTED["v1_variants"]["rows"][0]),
        ({"shallow": True}, RECOMPUTED["v1_variants"]["rows"][1]),
    ],
    ids=["full convolution", "shallow"],
)
def test_v1_variants_to_the_unit(variant, row):
    _, macs, macs_without_classifier, trainable = row
    ours = cost("mobilenet_v1", classes=1001, **variant)
    body = cost("mobilenet_v1", include_top=False, **variant)
    assert (ours.macs, body.macs) == (macs, macs_without_classifier)
    assert ours.trainable_params == trainable


@pytest.mark.parametrize(
    ("name", "alpha", "params"),
    # model.count_params() of keras.applications, 1000 classes
    [
        ("mobilenet_v1", 1.0, 4_253_864),
        ("mobilenet_v1", 0.75, 2_601_976),
        ("mobilenet_v1", 0.5, 1_342_536),
        ("mobilenet_v1", 0.25, 475_544),
        ("mobilenet_v2", 0.35, 1_691_208),
        ("mobilenet_v2", 0.5, 1_987_224),
        ("mobilenet_v2", 0.75, 2_663_064),
        ("mobilenet_v2", 1.0, 3_538_984),
        ("mobilenet_v2", 1.3, 5_431_048),
        ("mobilenet_v2", 1.4, 6_156_712),
    ],
)
def test_params_are_those_of_keras_applications(name, alpha, params):
    assert cost(name, alpha=alpha).params == params
    assert cost(name, alpha=alpha, resolution=97).params == params


@pytest.mark.parametrize(
    ("alpha", "resolution", "macs", "weights"),
    # The sums in the docstring of slim's mobilenet_v1.py
    [(1.0, 224, 567_716_352, 3_185_088), (0.75, 128, 106_002_432, 1_800_144)],
)
def test_v1_body_is_slims_docstring(alpha, resolution, macs, weights):
    body = cost("mobilenet_v1", alpha=alpha, resolution=resolution, include_top=False)
    assert body.macs == macs
    assert sum(row.macs // row.layer.size_out**2 for row in body.layers) == weights


def test_three_layers_by_hand():
    plan = (
        # 8x8x3 -> 4x4x4, then depthwise, then five classes
        Layer("a", "conv", ("image",), 8, 4, 3, 4, 3, 2, batch_norm=True),
        Layer("b", "depthwise", ("a",), 4, 4, 4, 4, 3, batch_norm=True),
        Layer("c", "dense", ("b",), 1, 1, 4, 5),
    )
    ours = plan_cost(plan, bytes_per_element=2)
    counts = [(r.name, r.macs, r.trainable_params, r.params) for r in ours.layers]
    assert counts == [
        ("a", 108 * 16, 108 + 8, 108 + 16),
        ("b", 36 * 16, 36 + 8, 36 + 16),
        ("c", 20, 20 + 5, 20 + 5),
    ]
    memory = [2 * (8 * 8 * 3 + 4 * 4 * 4), 2 * (2 * 4 * 4 * 4), 2 * (4 * 4 * 4 + 5)]
    assert [row.memory for row in ours.layers] == memory
    assert ours.peak_memory == 2 * 256
    assert (ours.macs, ours.params, ours.trainable_params) == (2324, 201, 185)
    assert ours.bytes_per_element == 2


def test_a_waiting_shortcut_stays_in_memory():
    shape = (2, 2, 1, 1)  # four elements
    plan = (
        Layer("a", "conv", ("image",), *shape),
        Layer("b", "conv", ("a",), *shape),
        Layer("c", "add", ("a", "b"), *shape),
        Layer("d", "conv", ("c",), *shape),
    )
    rows = plan_cost(plan, bytes_per_element=1).layers
    # image+a, a+b, a+b+sum, sum+d
    assert [row.memory for row in rows] == [8, 8, 12, 8]
    assert rows[2].macs == rows[2].params == 0


@pytest.mark.parametrize(
    ("name", "elements"),
    [
        # block_1_project reads 32 channels and writes 64 at 112 pixels
        ("mobilenet_v1", 112 * 112 * (32 + 64)),
        # block_2_depthwise reads 96 channels at 112 pixels, writes them at 56
        ("mobilenet_v2", 112 * 112 * 96 + 56 * 56 * 96),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_peak_memory(name, elements, size):
    assert cost(name, bytes_per_element=size).peak_memory == size * elements


def test_peak_memory_holds_the_shortcut():
    # block_3 at 56 pixels: 24 waiting, 144 read, 144 written
    rows = {row.name: row for row in cost("mobilenet_v2").layers}
    assert rows["block_3_depthwise"].memory == 4 * 56 * 56 * (24 + 144 + 144)


def test_totals_are_the_sums_of_the_layers():
    ours = cost("mobilenet_v2", alpha=0.5, resolution=97)
    assert ours.macs == sum(row.macs for row in ours.layers)
    assert ours.params == sum(row.params for row in ours.layers)
    assert [row.layer for row in ours.layers] == list(
        make_plan("mobilenet_v2", alpha=0.5, resolution=97)
    )


def test_odd_size_by_hand():
    # 33 pixels: SAME gives the stem 17x17 outputs of 3x3x3x32 kernels
    stem = cost("mobilenet_v1", resolution=33).layers[0]
    assert stem.macs == 27 * 32 * 17 * 17


def test_two_sides_and_other_channels_by_hand():
    # 97x160 grey: the stem's 49x80 outputs of 3x3x1x32 kernels
    price = cost("mobilenet_v1", resolution=(97, 160), channels=1)
    stem, depthwise = price.layers[:2]
    assert stem.macs == 9 * 32 * 49 * 80
    assert stem.params == 9 * 32 + 4 * 32
    assert stem.memory == 4 * (97 * 160 * 1 + 49 * 80 * 32)
    assert depthwise.macs == 9 * 32 * 49 * 80
    assert (stem.layer.size_in, stem.layer.size_out) == ((97, 160), (49, 80))
    assert price.params == cost("mobilenet_v1").params - 2 * 9 * 32
    assert cost("mobilenet_v1", channels=4).params == cost("mobilenet_v1").params + 288


def test_a_turned_image_costs_the_same():
    wide, tall = (cost(resolution=size) for size in ((96, 160), (160, 96)))
    assert wide[:5] == tall[:5]
    assert wide.layers[0].layer.size_out == (48, 80)


def test_sizes_in_json_are_numbers_or_pairs():
    square, wide = (
        json.loads(json.dumps(cost(resolution=size).as_dict()))["layers"]
        for size in (96, (96, 160))
    )
    assert [row["size_out"] for row in square][:1] == [48]
    assert [row["size_out"] for row in wide][:1] == [[48, 80]]
    assert wide[-1]["size_out"] == 1
    assert cost(resolution=(96, 160)).as_dict()["layers"][0]["size_out"] == [48, 80]


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_dilation_costs_mult_adds_but_no_weights(name):
    plain, dilated = cost(name), cost(name, output_stride=16)
    assert dilated.params == plain.params
    rows = {row.name: row.macs for row in plain.layers}
    larger = {r.layer.size_out for r in dilated.layers if r.macs > rows[r.name]}
    assert larger == {14}


@pytest.mark.parametrize(
    "variant", [{"linear_bottleneck": False}, {"shortcut": "none"}, {}]
)
def test_v2_variants_that_cost_the_same(variant):
    ours, paper = cost("mobilenet_v2", **variant), cost("mobilenet_v2")
    assert (ours.macs, ours.params) == (paper.macs, paper.params)


def test_shortcuts_between_expansions_cost_the_same_but_need_more_memory():
    wide, paper = cost(shortcut="expansion"), cost()
    assert (wide.macs, wide.params) == (paper.macs, paper.params)
    plain = {row.name: row.memory for row in paper.layers}["block_4_expand"]
    waiting = {row.name: row.memory for row in wide.layers}["block_4_expand"]
    # The 144 channels of block_3_expand wait for their addition.
    assert (plain, waiting) == (4 * 56**2 * (24 + 144), 4 * 56**2 * (24 + 144 + 144))


def test_expansion_by_hand():
    # block_17: 160 -> 160 t -> 320 at 7 pixels
    for t in (3, 6, 9):
        rows = {r.name: r for r in cost(expansion=t).layers}
        macs = [rows[f"block_17_{p}"].macs for p in ("expand", "depthwise", "project")]
        assert macs == [49 * 160 * 160 * t, 49 * 9 * 160 * t, 49 * 160 * t * 320]


def test_classes_and_top():
    body = cost(include_top=False)
    assert body.layers[-1].name == "top"
    for classes in (1, 10, 1001):
        ours = cost(classes=classes)
        assert ours.params - body.params == (1280 + 1) * classes
        assert ours.macs - body.macs == 1280 * classes


def test_as_dict_is_json():
    ours = cost("mobilenet_v1", alpha=0.25, resolution=128, classes=1001)
    back = json.loads(json.dumps(ours.as_dict()))
    assert back["macs"] == 13_570_304
    assert back["layers"][0]["name"] == "stem"
    assert sum(row["macs"] for row in back["layers"]) == 13_570_304


def test_all_points_in_a_tenth_of_a_second():
    def seconds():
        start = time.process_time()  # ours, however busy the machine is
        for point in POINTS:
            name, alpha, resolution, *_ = point.values
            cost(name, alpha=alpha, resolution=resolution, classes=1001)
        return time.process_time() - start

    assert min(seconds() for _ in range(5)) < 0.1


# in + out + (expanded in + expanded out) / n at 16 bit, in thousands of bytes, counted
# by another program; 32 channels in 5 and in 6 groups: the largest has 7 and 6.
SPLITS = {
    (1.0, 224): {1: 3562.5, 2: 2057.2, 3: 1555.5, 4: 1404.9, 96: 1229.3},
    (0.35, 96): {1: 322.6, 2: 184.3, 3: 138.2, 4: 129.0},
}


@pytest.mark.parametrize(
    ("network", "splits", "kilobytes"),
    [(n, s, kb) for n, counted in SPLITS.items() for s, kb in counted.items()],
)
def test_memory_in_splits(network, splits, kilobytes):
    alpha, resolution = network
    ours = cost(
        alpha=alpha, resolution=resolution, bytes_per_element=2, splits=splits
    ).peak_memory
    assert ours / 1000 == pytest.approx(kilobytes, abs=0.06)


def test_the_largest_of_unequal_groups_counts():
    # block_1 at 112 pixels: 32 read, 16 written, 7 of the 32 depthwise ones at a time
    by_hand = 2 * 112 * 112 * (32 + 16 + 7)
    assert cost(bytes_per_element=2, splits=5).peak_memory == by_hand
    rows = {row.name: row.memory for row in cost(splits=7).layers}
    # block_2: 16 at 112 pixels, 24 at 56, and 14 of 96 at both
    by_hand = 4 * (112**2 * (16 + 14) + 56**2 * (24 + 14))
    parts = ("expand", "depthwise", "project")
    assert [rows[f"block_2_{part}"] for part in parts] == [by_hand] * 3
    plain = {row.name: row.memory for row in cost().layers}
    assert (rows["stem"], rows["top"]) == (plain["stem"], plain["top"])


def test_the_stem_remains():
    price = cost(alpha=0.35, resolution=96, bytes_per_element=2, splits=16)
    rows = {row.name: row.memory for row in price.layers}
    assert rows["block_1_project"] == 2 * 48 * 48 * (16 + 8 + 1)
    assert price.peak_memory == rows["stem"] == 2 * (96 * 96 * 3 + 48 * 48 * 16)


def test_splits_change_memory_alone():
    plain, split = (
        cost(alpha=0.5, resolution=(97, 160), splits=splits) for splits in (None, 3)
    )
    assert split[:3] == plain[:3]
    assert split.peak_memory < plain.peak_memory
    assert [row[:4] for row in split.layers] == [row[:4] for row in plain.layers]


def test_more_splits_than_channels_are_one_channel_each():
    assert cost(splits=10**6) == cost(splits=960)


def test_splits_that_need_no_expansion_or_no_shortcut():
    for variant in ({"shortcut": "none"}, {"linear_bottleneck": False}):
        assert cost(splits=4, **variant).peak_memory == cost(splits=4).peak_memory


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"splits": 0}, "splits must be a whole number of at least 1; got 0"),
        ({"splits": 2.5}, "splits must be a whole number .* got 2.5"),
        ({"splits": True}, "splits must be a whole number .* got True"),
        ({"splits": "2"}, "splits must be a whole number .* got '2'"),
        ({"splits": 2, "name": "mobilenet_v1"}, "splits is of bottlenecks that expand"),
        ({"splits": 2, "expansion": 1}, "splits is of bottlenecks that expand"),
        ({"splits": 2, "shortcut": "expansion"}, "got shortcut='expansion'"),
    ],
)
def test_splits_that_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        cost(**arguments)
