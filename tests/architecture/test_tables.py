import pytest

from keras_mobilenets.architecture.tables import (
    MOBILENET_V1,
    MOBILENET_V2,
    NETWORKS,
    Bottleneck,
    Conv,
    Separable,
    make_divisible,
    truncate,
    vary,
)
from tests.data import read


def test_v2_rows_are_the_papers():
    printed = [
        (1 if t is None else t, c, n, s)
        for _, operator, t, c, n, s in read("paper_costs")["v2_table_2"]["rows"]
        if operator == "bottleneck"
    ]
    rows = [row for row in MOBILENET_V2 if isinstance(row, Bottleneck)]
    assert [(r.expansion, r.channels, r.repeats, r.stride) for r in rows] == printed


def test_v1_rows_are_the_papers_but_for_the_misprinted_stride():
    printed = read("paper_costs")["v1_table_1"]["rows"]
    depthwise = [row for row in printed if row[0].endswith("Conv dw")]
    pointwise = [row for row in printed if row[2].startswith("1x1x")]
    expected = [
        (int(point[2].split("x")[-1]), 5 if point[0].startswith("5x") else 1, deep[1])
        for deep, point in zip(depthwise, pointwise, strict=True)
    ]
    assert expected[-1] == (1024, 1, 2)  # the misprint
    expected[-1] = (1024, 1, 1)
    rows = [row for row in MOBILENET_V1 if isinstance(row, Separable)]
    assert [(r.channels, r.repeats, r.stride) for r in rows] == expected


@pytest.mark.parametrize(
    ("channels", "rounded"),
    # 8 at least; multiples of 8; up instead of down where down loses over 10 %.
    [
        (1, 8),
        (11.2, 16),
        (12, 16),
        (18, 24),
        (19.9, 24),
        (22.4, 24),
        (28, 32),
        (33, 32),
        (36, 40),
        (44.8, 48),
        (91, 88),
        (134.4, 136),
        (416, 416),
    ],
)
def test_make_divisible(channels, rounded):
    assert make_divisible(channels) == rounded


def test_make_divisible_never_loses_more_than_a_tenth():
    for channels in range(8, 2000):
        rounded = make_divisible(channels)
        assert rounded % 8 == 0
        assert rounded >= 0.9 * channels


@pytest.mark.parametrize(
    ("channels", "rounded"), [(3.2, 8), (11.9, 11), (24.0, 24), (716.8, 716)]
)
def test_truncate(channels, rounded):
    assert truncate(channels) == rounded


def test_constants_of_the_networks():
    # slim: mobilenet_v1.py, mobilenet_v1_arg_scope; mobilenet.training_scope
    constants = {n: (x.dropout, x.batch_norm_momentum) for n, x in NETWORKS.items()}
    assert constants == {"mobilenet_v1": (0.001, 0.9997), "mobilenet_v2": (0.2, 0.997)}


def test_shallow_drops_only_the_five_equal_blocks():
    kept = vary(MOBILENET_V1, shallow=True)
    dropped = [row for row in MOBILENET_V1 if row not in kept]
    assert dropped == [Separable(512, 5, 1)]
    assert Separable(512, 1, 2) in kept


def test_variations_change_only_the_rows_that_have_them():
    full = vary(MOBILENET_V1, separable=False)
    assert full[0] == MOBILENET_V1[0]
    assert all(not row.separable for row in full if isinstance(row, Separable))

    changed = vary(MOBILENET_V2, expansion=4, linear_bottleneck=False, shortcut="none")
    blocks = [row for row in changed if isinstance(row, Bottleneck)]
    assert [b.expansion for b in blocks] == [1, 4, 4, 4, 4, 4, 4]
    assert {(b.linear, b.shortcut) for b in blocks} == {(False, "none")}
    assert [row for row in changed if isinstance(row, Conv)] == [
        row for row in MOBILENET_V2 if isinstance(row, Conv)
    ]


def test_no_variation_is_the_papers_table():
    assert vary(MOBILENET_V1) == MOBILENET_V1
    assert vary(MOBILENET_V2) == MOBILENET_V2
