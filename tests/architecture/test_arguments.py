"""Bad input: a ValueError with the argument, what was received, what is accepted."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from keras_mobilenets.architecture import cost, make_plan
from keras_mobilenets.architecture.arguments import (
    FOREIGN,
    VARIANTS,
    check_choice,
    check_integer,
    check_known,
    check_number,
    check_resolution,
    rho_of,
    shown,
    suggest,
)

HUGE = 10**400  # beyond any float

# Wrong wherever a number is wanted.
NOT_NUMBERS = [
    math.nan,
    math.inf,
    -math.inf,
    np.float32("nan"),
    HUGE,
    Fraction(HUGE),
    "1",
    b"1",
    "",
    True,
    np.True_,
    1j,
    Decimal(1),
    [1],
    (1, 1),
    {},
    {1},
    np.array(1.0),
    np.array([1.0, 2.0]),
    object,
]

# Wrong wherever one of a few words, or True or False, is wanted.
NOT_WORDS = ["", "x", 3, 1.5, math.nan, [], ["none"], {}, b"none", object, 1j]
ARRAYS = [np.array(["none"]), np.array(["relu6", "none"]), np.array([8, 16])]


def rejected(argument, value, *accepted, name="mobilenet_v2"):
    """The message of the error, once it names what it must."""
    settings = {"name": name, argument: value}
    with pytest.raises(ValueError, match=argument) as error:
        cost(**settings)
    message = str(error.value)
    assert repr(value) in message
    for words in accepted:
        assert words in message
    return message


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("mobilenetv2", "mobilenet_v2"),
        ("MobileNetV1", "mobilenet_v1"),
        ("MobileNet_V2", "mobilenet_v2"),
        ("mobilnet_v1", "mobilenet_v1"),
        ("mobilenet-v2", "mobilenet_v2"),
    ],
)
def test_unknown_name_with_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f"did you mean {nearest!r}") as error:
        make_plan(name)
    for words in ("name must be one of", repr(name), "mobilenet_v1", "mobilenet_v2"):
        assert words in str(error.value)


@pytest.mark.parametrize("name", [None, 2, *NOT_WORDS, *ARRAYS], ids=repr)
def test_wrong_name(name):
    with pytest.raises(ValueError, match="name must be one of") as error:
        make_plan(name)
    assert repr(name) in str(error.value)


def test_a_far_name_suggests_nothing():
    with pytest.raises(ValueError, match="'zzz'") as error:
        make_plan("zzz")
    assert "did you mean" not in str(error.value)


def test_an_array_that_holds_a_right_answer_is_wrong():
    with pytest.raises(ValueError, match="name must be one of"):
        make_plan(np.array(["mobilenet_v1"]))


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
@pytest.mark.parametrize(
    "alpha", [0, 0.0, -1, -0.5, 1e308, None, *NOT_NUMBERS], ids=repr
)
def test_alpha(name, alpha):
    rejected("alpha", alpha, "above 0", "0.25 to 1.0", "0.35 to 1.4", name=name)


@pytest.mark.parametrize("rho", [0, -0.5, 1e308, *NOT_NUMBERS], ids=repr)
def test_rho(rho):
    rejected("rho", rho, "above 0", "0.857 for 192")


@pytest.mark.parametrize("rho", [0.01, 0.1, 31 / 224, 1e-300])
def test_rho_too_small(rho):
    rejected("rho", rho, "at least 0.143", "32 pixels", f"{round(rho * 224)} pixels")


@pytest.mark.parametrize(
    "resolution", [0, -224, 31, 224.5, 31.999, 1e308, "224", *NOT_NUMBERS], ids=repr
)
def test_resolution(resolution):
    rejected("resolution", resolution, "whole number", "at least 32", "pixels")


@pytest.mark.parametrize(
    "resolution",
    [
        (96,),
        (),
        (96, 160, 3),
        [96, 160, 3, 1],
        (96.5, 160),
        (96, "160"),
        (True, 96),
        (96, None),
        ((96, 160), 96),
        (31, 160),
        (160, 31),
        (96, 10**400),
        "96",
        "31x160",
        "96x",
        "x160",
        "96x160x3",
        "-96x160",
        "96X160",
        "99999999999x160",
        {96, 160},
        np.array([96, 160]),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_resolutions_that_are_no_pair(resolution):
    rejected("resolution", resolution, "whole number", "at least 32", "pixels")


def test_the_third_number_is_an_argument_of_its_own():
    assert "channels" in rejected("resolution", (96, 160, 3))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((96, 160), (96, 160)),
        ([160, 96], (160, 96)),
        ("96x160", (96, 160)),
        ((np.int64(96), 160.0), (96, 160)),
        ((96, 96), 96),
        ("96x96", 96),
        ((32, 33), (32, 33)),
    ],
    ids=str,
)
def test_resolutions_of_two_sides(given, expected):
    assert check_resolution(None, given) == expected
    assert make_plan(resolution=given) == make_plan(resolution=expected)


def test_rho_is_of_squares():
    assert (rho_of(192), rho_of((96, 160))) == (192 / 224, None)
    with pytest.raises(ValueError, match="rho or resolution, not both"):
        cost(rho=0.5, resolution=(96, 160))


@pytest.mark.parametrize("channels", [0, 2, 5, 3.5, None, *NOT_NUMBERS], ids=repr)
def test_channels(channels):
    rejected("channels", channels, "1, 3, 4")


@pytest.mark.parametrize(("rho", "resolution"), [(1.0, 224), (0.5, 192), (0, 0)])
def test_rho_and_resolution(rho, resolution):
    with pytest.raises(ValueError, match="rho or resolution, not both") as error:
        cost(rho=rho, resolution=resolution)
    assert f"rho={rho!r}" in str(error.value)
    assert f"resolution={resolution!r}" in str(error.value)


@pytest.mark.parametrize(
    "classes", [0, -1, 0.5, 10.5, 1e308, None, *NOT_NUMBERS], ids=repr
)
def test_classes(classes):
    rejected("classes", classes, "whole number", "at least 1", "include_top=False")


@pytest.mark.parametrize("expansion", [0, 0.5, -6, 1e308, None, *NOT_NUMBERS], ids=repr)
def test_expansion(expansion):
    rejected("expansion", expansion, "at least 1")


@pytest.mark.parametrize(
    "output_stride", [0, 1, 3, 64, -8, 8.5, "8", *NOT_NUMBERS, *ARRAYS], ids=repr
)
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_output_stride(name, output_stride):
    rejected("output_stride", output_stride, "None, 2, 4, 8, 16, 32", name=name)


@pytest.mark.parametrize("value", [None, True, *NOT_WORDS, *ARRAYS], ids=repr)
@pytest.mark.parametrize(
    ("argument", "accepted"),
    [
        ("shortcut", "'bottleneck', 'expansion', 'none'"),
        ("activation", "'relu6', 'relu'"),
    ],
)
def test_words(argument, accepted, value):
    rejected(argument, value, accepted)


@pytest.mark.parametrize("value", [True, *NOT_WORDS, *ARRAYS], ids=repr)
def test_pooling(value):
    rejected("pooling", value, "None, 'avg', 'max'")


@pytest.mark.parametrize("value", ["Avg", "average"])
def test_pooling_suggests(value):
    assert "did you mean 'avg'" in rejected("pooling", value)


@pytest.mark.parametrize(
    "value",
    [None, 0, 1, 1.0, np.True_, np.array(True), "True", "", [], [True]],
    ids=repr,
)
@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("mobilenet_v1", "shallow"),
        ("mobilenet_v1", "separable"),
        ("mobilenet_v2", "linear_bottleneck"),
        ("mobilenet_v1", "include_top"),
        ("mobilenet_v2", "include_top"),
    ],
)
def test_flags(name, argument, value):
    rejected(argument, value, "True or False", name=name)


@pytest.mark.parametrize(
    ("name", "variant", "owner"),
    [
        ("mobilenet_v2", {"shallow": True}, "mobilenet_v1"),
        ("mobilenet_v2", {"shallow": False}, "mobilenet_v1"),
        ("mobilenet_v2", {"separable": False}, "mobilenet_v1"),
        ("mobilenet_v1", {"expansion": 6}, "mobilenet_v2"),
        ("mobilenet_v1", {"linear_bottleneck": False}, "mobilenet_v2"),
        ("mobilenet_v1", {"shortcut": "none"}, "mobilenet_v2"),
    ],
)
def test_variations_of_the_other_network(name, variant, owner):
    (argument,) = variant
    with pytest.raises(ValueError, match=f"{argument} is a variation of {owner}") as e:
        cost(name, **variant)
    assert repr(name) in str(e.value)
    for own in VARIANTS[name]:
        assert own in str(e.value)


@pytest.mark.parametrize(
    ("argument", "fix"),
    [
        ("depth_multiplier", "alpha"),
        ("width_mult", "alpha"),
        ("input_shape", "resolution"),
        ("num_classes", "classes"),
        ("pretrained", "weights"),
    ],
)
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_arguments_of_other_libraries(name, argument, fix):
    with pytest.raises(ValueError, match=f"no argument {argument!r}.*use {fix}"):
        cost(name, **{argument: 1})


@pytest.mark.parametrize("argument", FOREIGN)
def test_every_foreign_argument_is_answered_with_its_fix(argument):
    with pytest.raises(ValueError, match="mobilenet_v2 has no argument") as error:
        make_plan(**{argument: None})
    assert FOREIGN[argument] in str(error.value)


@pytest.mark.parametrize(
    ("argument", "nearest"),
    [
        ("expantion", "expansion"),
        ("short_cut", "shortcut"),
        ("outputstride", "output_stride"),
        ("linear", "linear_bottleneck"),
    ],
)
def test_unknown_argument_with_the_nearest(argument, nearest):
    with pytest.raises(ValueError, match=f"did you mean {nearest!r}") as error:
        cost(**{argument: 1})
    assert repr(argument) in str(error.value)


def test_unknown_argument_lists_each_accepted_one_once():
    with pytest.raises(ValueError, match="accepted") as error:
        cost(qqq=1)
    for argument in VARIANTS["mobilenet_v1"] + VARIANTS["mobilenet_v2"]:
        assert str(error.value).count(argument) == 1


@pytest.mark.parametrize(
    ("settings", "same"),
    # What is a right number stays one, whatever its type.
    [
        ({"alpha": 1}, {}),
        ({"alpha": np.float64(1)}, {}),
        ({"alpha": Fraction(1, 2)}, {"alpha": 0.5}),
        ({"resolution": 224.0}, {}),
        ({"resolution": np.int64(224)}, {}),
        ({"rho": 1}, {}),
        ({"rho": np.float32(1)}, {}),
        ({"classes": np.int32(1000)}, {}),
        ({"expansion": 6.0}, {}),
        ({"output_stride": 32}, {}),
        ({"output_stride": np.int64(16)}, {"output_stride": 16}),
        ({"activation": np.str_("relu6")}, {}),
        ({"name": np.str_("mobilenet_v2")}, {}),
    ],
    ids=str,
)
def test_right_values_of_other_types(settings, same):
    assert make_plan(**settings) == make_plan(**same)


@pytest.mark.parametrize(
    ("rho", "pixels"), [(1, 224), (0.857, 192), (0.714, 160), (0.571, 128), (1 / 7, 32)]
)
def test_rho_in_pixels(rho, pixels):
    assert check_resolution(rho, None) == pixels


@pytest.mark.parametrize("resolution", [32, 33, 97, 224, 1024])
def test_resolutions_from_32_on(resolution):
    assert check_resolution(None, resolution) == resolution


def test_neither_is_224():
    assert check_resolution(None, None) == 224


def test_very_narrow_and_very_wide_networks_have_costs():
    for name in ("mobilenet_v1", "mobilenet_v2"):
        assert cost(name, alpha=1e-9).macs > 0
        assert cost(name, alpha=100, resolution=32768).macs > cost(name).macs


def test_bounds_are_inclusive_or_not():
    assert check_number("x", 0, low=0) == 0
    assert check_number("x", 2, low=0, high=2) == 2
    assert check_integer("x", 1, low=1, high=1) == 1
    with pytest.raises(ValueError, match="x must be a finite number above 0; got 0"):
        check_number("x", 0, low=0, open_low=True)
    with pytest.raises(ValueError, match="of at least 0 and at most 2; got 3"):
        check_number("x", 3, low=0, high=2)
    with pytest.raises(ValueError, match="of at least 1 and at most 5; got 6"):
        check_integer("x", 6, low=1, high=5)


def test_check_choice_returns_what_is_accepted():
    assert check_choice("x", None, (None, 8)) is None
    assert type(check_choice("x", np.int64(8), (None, 8))) is int
    assert type(check_choice("x", np.str_("a"), ("a",))) is str


def test_check_known_accepts_and_suggests():
    check_known("this", ["a", "b"], ["a", "b", "c"])
    with pytest.raises(ValueError, match="this has no argument 'beta0'.*'beta'"):
        check_known("this", ["beta0"], ["alpha", "beta"])


def test_suggest():
    assert suggest("Alpha", ["alpha", "rho"]) == "; did you mean 'alpha'?"
    assert suggest("zzz", ["alpha", "rho"]) == ""
    assert suggest(None, ["alpha"]) == ""


@pytest.mark.parametrize(
    "value",
    [2**63, 10**23, 10**400, 10**5000, 2.0**70],
    ids=["2^63", "10^23", "10^400", "10^5000", "float"],
)
def test_whole_numbers_beyond_any_counter(value):
    with pytest.raises(ValueError, match=f"epochs must .* at most {2**63 - 1}; got"):
        check_integer("epochs", value, low=1)
    with pytest.raises(ValueError, match="epochs must .* and at most 7; got"):
        check_integer("epochs", value, low=1, high=7)


def test_the_widest_whole_number():
    assert check_integer("seed", 2**63 - 1, low=0) == 2**63 - 1


class Broken:
    def __repr__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "'x'"),
        ("x" * 10**6, f"'{'x' * 499}..."),
        (10**5000, "a number beyond what is printed"),
        (Fraction(10**5000), "a number beyond what is printed"),
        (Broken(), f"a {Broken}"),
    ],
    ids=["short", "long", "integer", "fraction", "broken"],
)
def test_what_was_received_is_shown(value, text):
    assert shown(value) == text
    with pytest.raises(ValueError, match="output_stride must be one of") as error:
        cost(output_stride=value)
    assert text in str(error.value)


def test_a_long_word_is_like_none():
    assert suggest("mobilenet" * 10**5, ["mobilenet_v1"]) == ""
