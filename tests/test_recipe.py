import dataclasses
import json
import math
import pickle
import re

import numpy as np
import pytest

import keras_mobilenets as km
from keras_mobilenets.errors import UsageError
from keras_mobilenets.recipe import (
    FIELDS,
    Recipe,
    difference,
    get_recipe,
    recipes,
)

KINDS = {
    "paper", "slim", "garden", "torch", "flowers", "keras", "tutorial", "our choice",
}  # fmt: skip


def source_tags(source):
    return re.findall(r"\[([^\]]*)\]", source)


def test_names():
    assert set(recipes) >= {
        "paper_v1",
        "paper_v2",
        "slim_v1",
        "slim_v2",
        "flowers",
        "model_garden_v1",
        "model_garden_v2",
        "torchvision_v2",
        "quick",
        "finetune",
    }
    assert all(recipe.name == name for name, recipe in recipes.items())


@pytest.mark.parametrize("name", recipes)
@pytest.mark.parametrize("field", FIELDS)
def test_every_value_has_a_source(name, field):
    source = recipes[name].sources[field]
    tags = source_tags(source)
    assert source.startswith("[")
    assert tags
    assert set(tags) <= KINDS


@pytest.mark.parametrize("name", recipes)
def test_sources_are_of_the_fields(name):
    assert set(recipes[name].sources) == set(FIELDS)
    assert recipes[name].summary.endswith(".")


@pytest.mark.parametrize("name", recipes)
def test_each_says_what_was_measured_of_it(name):
    measured = recipes[name].measured
    assert measured.endswith(".")
    # A number stands beside the command that shows it.
    assert "`" in measured or not re.search(r"\d %", measured)


@pytest.mark.parametrize("name", recipes)
def test_statistics_of_replicas_are_as_the_authors_had_them(name):
    """Nobody synchronised them; `quick` is nobody's."""
    assert recipes[name].synchronize_batch_norm == (name == "quick")


def test_a_changed_recipe_is_not_what_was_measured():
    assert recipes["quick"].replace() is recipes["quick"]
    assert recipes["quick"].replace(epochs=1).measured == "not as changed"


def test_fields_are_all_but_the_labels():
    labels = {"name", "summary", "measured", "sources"}
    assert {f.name for f in dataclasses.fields(Recipe)} - set(FIELDS) == labels


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (  # Sandler et al. 2018, section 6.1
            "paper_v2",
            {
                "optimizer": "rmsprop",
                "rmsprop_decay": 0.9,
                "momentum": 0.9,
                "learning_rate": 0.045,
                "decay_rate": 0.98,
                "decay_epochs": 1,
                "weight_decay": 4e-5,
                "batch_size": 96,
                "label_smoothing": 0,
                "ema_decay": None,
            },
        ),
        (  # slim's README and train_image_classifier.py
            "slim_v2",
            {
                "learning_rate": 0.045,
                "decay_rate": 0.98,
                "decay_epochs": 2.5,
                "staircase": True,
                "rmsprop_decay": 0.9,
                "momentum": 0.9,
                "epsilon": 1,
                "initial_accumulator": 1,
                "weight_decay": 4e-5,
                "weight_decay_scope": "kernels",
                "label_smoothing": 0.1,
                "ema_decay": 0.9999,
                "dropout": 0.2,
                "batch_norm_momentum": 0.997,
                "kernel_stddev": 0.09,
                "crop_area": (0.05, 1),
                "eval_crop": 0.875,
                "resize": "tf1",
            },
        ),
        (
            "slim_v1",
            {"batch_norm_momentum": 0.9997, "dropout": 0.001, "label_smoothing": 0},
        ),
        (  # Howard et al. 2017, section 3.2
            "paper_v1",
            {
                "optimizer": "rmsprop",
                "label_smoothing": 0,
                "weight_decay_scope": "kernels",
                "ema_decay": None,
            },
        ),
        (
            "flowers",
            {
                "epochs": 120,
                "batch_size": 96,
                "dropout": 0.3,
                "early_stopping_patience": 27,
            },
        ),
        (
            "torchvision_v2",
            {"optimizer": "sgd", "epochs": 300, "momentum": 0.9, "decay_epochs": 1},
        ),
        ("model_garden_v1", {"decay_rate": 0.94, "decay_epochs": 2.5}),
        ("model_garden_v2", {"decay_rate": 0.96, "epsilon": 0.002, "epochs": 500}),
    ],
)
def test_values(name, values):
    assert {field: getattr(recipes[name], field) for field in values} == values


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_has_its_check_and_its_help(field):
    (found,) = (f for f in dataclasses.fields(Recipe) if f.name == field)
    help = found.metadata["help"]
    assert 0 < len(help) <= 80
    assert "\n" not in help
    value = getattr(recipes["slim_v2"], field)
    assert found.metadata["check"](field, value) == value


def test_slim_v2_epochs_are_its_steps():
    steps, images = 5_500_000, 1_281_167
    assert recipes["slim_v2"].epochs == int(steps * 96 / images)


def test_recipes_are_frozen():
    recipe = recipes["quick"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.epochs = 3
    with pytest.raises(TypeError):
        recipes["mine"] = recipe


def test_override():
    base = recipes["slim_v2"]
    changed = base.replace(decay_rate=1.0, ema_decay=None, epochs=3)
    assert (changed.decay_rate, changed.ema_decay, changed.epochs) == (1.0, None, 3)
    overridden = {f for f in FIELDS if changed.sources[f] == "[yours]"}
    assert overridden == {"decay_rate", "ema_decay", "epochs"}
    assert base.decay_rate == 0.98
    assert base.sources["decay_rate"] != "[yours]"
    kept = set(FIELDS) - overridden
    assert all(getattr(changed, f) == getattr(base, f) for f in kept)
    assert all(changed.sources[f] == base.sources[f] for f in kept)


def test_get_recipe():
    assert get_recipe("quick") == recipes["quick"]
    assert get_recipe(recipes["quick"]) == recipes["quick"]
    assert get_recipe("quick", epochs=2).epochs == 2
    assert get_recipe(recipes["quick"], epochs=2) == get_recipe("quick", epochs=2)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("slim-v2", "slim_v2"), ("paperv1", "paper_v1"), ("quik", "quick")],
)
def test_unknown_recipe_with_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f"did you mean {nearest!r}") as error:
        get_recipe(name)
    assert all(repr(known) in str(error.value) for known in recipes)


@pytest.mark.parametrize("name", [None, 1, [], {}, ["quick"], object], ids=repr)
def test_wrong_recipe(name):
    with pytest.raises(ValueError, match="recipe must be one of") as error:
        get_recipe(name)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize(
    ("field", "nearest"),
    [
        ("learningrate", "learning_rate"),
        ("lr_decay_rate", "decay_rate"),
        ("epoch", "epochs"),
        ("batchsize", "batch_size"),
    ],
)
def test_unknown_field_with_the_nearest(field, nearest):
    with pytest.raises(ValueError, match=f"did you mean {nearest!r}") as error:
        recipes["slim_v2"].replace(**{field: 1})
    message = str(error.value)
    assert "recipe 'slim_v2'" in message
    assert repr(field) in message
    assert all(known in message for known in FIELDS)


@pytest.mark.parametrize(
    "field", ["name", "summary", "measured", "sources", "self", "recipe", "obj"]
)
def test_labels_are_no_settings(field):
    with pytest.raises(UsageError, match=f"no argument {field!r}"):
        recipes["slim_v2"].replace(**{field: "mine"})
    with pytest.raises(UsageError, match=f"no argument {field!r}"):
        get_recipe("slim_v2", **{field: "mine"})


NUMBERS = [
    "learning_rate",
    "asynchronous_workers",
    "decay_rate",
    "decay_epochs",
    "warmup_epochs",
    "rmsprop_decay",
    "momentum",
    "epsilon",
    "initial_accumulator",
    "weight_decay",
    "label_smoothing",
    "dropout",
    "ema_decay",
    "batch_norm_momentum",
    "kernel_stddev",
    "batch_size",
    "epochs",
    "early_stopping_patience",
    "crop_min_covered",
    "eval_crop",
    "head_epochs",
    "body_learning_rate",
]
FLAGS = [
    "scale_learning_rate",
    "synchronize_batch_norm",
    "staircase",
    "background_class",
    "flip",
    "exif_orientation",
]
WORDS = ["optimizer", "weight_decay_scope", "color", "resize", "batch_norm"]
NAMES = ["freeze"]
PAIRS = ["crop_area", "crop_aspect"]


def test_every_field_is_tried():
    assert sorted(NUMBERS + FLAGS + WORDS + NAMES + PAIRS) == sorted(FIELDS)


def rejected(field, value):
    with pytest.raises(UsageError, match=f"^{field}") as error:
        recipes["slim_v2"].replace(**{field: value})
    return str(error.value)


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize(
    "value",
    [-1, math.nan, math.inf, "1", True, [1], {}, 1j, 1e31, 10**400, np.array([1.0])],
    ids=lambda value: str(value)[:10],
)
def test_impossible_numbers(field, value):
    assert repr(value) in rejected(field, value)


@pytest.mark.parametrize("field", FLAGS)
@pytest.mark.parametrize("value", [None, 0, 1, "yes", []], ids=repr)
def test_impossible_flags(field, value):
    assert repr(value) in rejected(field, value)


@pytest.mark.parametrize("field", WORDS)
@pytest.mark.parametrize("value", ["adam?", 1, True, [], {}], ids=repr)
def test_impossible_words(field, value):
    assert repr(value) in rejected(field, value)


@pytest.mark.parametrize("field", PAIRS)
@pytest.mark.parametrize(
    "value",
    [
        1,
        1e31,
        (0.1, 1e31),
        np.array([0.1, 1.0]),
        "ab",
        (1,),
        (0.1, 0.2, 0.3),
        (0.5, 0.1),
        (0, 1),
        (-1, 1),
        (math.nan, 1),
        (0.1, math.inf),
        ("a", "b"),
        {0.1: 1, 0.2: 1},
    ],
    ids=str,
)
def test_impossible_pairs(field, value):
    rejected(field, value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0),
        ("learning_rate", None),
        ("decay_epochs", 0),
        ("decay_rate", 1.01),
        ("rmsprop_decay", 1),
        ("momentum", 1),
        ("momentum", 1.5),
        ("label_smoothing", 1),
        ("dropout", 1),
        ("dropout", 1.2),
        ("ema_decay", 1),
        ("ema_decay", 0),
        ("batch_norm_momentum", 1),
        ("kernel_stddev", 0),
        ("batch_size", 0),
        ("batch_size", 10**23),
        ("asynchronous_workers", 10**23),
        ("batch_size", 1.5),
        ("batch_size", None),
        ("epochs", 0),
        ("epochs", 2.5),
        ("epochs", 10**23),
        ("early_stopping_patience", 0),
        ("crop_area", (0.5, 1.5)),
        ("crop_min_covered", 1.1),
        ("eval_crop", 0),
        ("eval_crop", 1.1),
        ("optimizer", None),
        ("optimizer", "adam"),
        ("resize", None),
        ("color", "slow"),
        ("crop_aspect", None),
    ],
)
def test_impossible_values(field, value):
    rejected(field, value)


@pytest.mark.parametrize(
    ("field", "value"),
    # The ends of what is accepted.
    [
        ("decay_rate", 1),
        ("decay_rate", 1.0),
        ("warmup_epochs", 0),
        ("weight_decay", 0),
        ("dropout", 0),
        ("ema_decay", None),
        ("eval_crop", None),
        ("eval_crop", 1),
        ("color", None),
        ("crop_area", None),
        ("crop_area", (1, 1)),
        ("early_stopping_patience", None),
        ("early_stopping_patience", 1),
        ("epsilon", 0),
        ("initial_accumulator", 0),
    ],
)
def test_possible_values(field, value):
    assert getattr(recipes["slim_v2"].replace(**{field: value}), field) == value


@pytest.mark.parametrize(
    ("field", "value", "held"),
    [
        ("learning_rate", 1e-50, "0.0"),
        ("kernel_stddev", 1e-50, "0.0"),
        ("decay_epochs", 1e-50, "0.0"),
        ("crop_aspect", (1e-50, 1), "0.0"),
        ("ema_decay", 1 - 1e-12, "1.0"),
        ("momentum", 1 - 1e-12, "1.0"),
        ("batch_norm_momentum", 1 - 1e-12, "1.0"),
    ],
)
def test_numbers_that_float32_makes_impossible(field, value, held):
    """An average that never moves, or a rate of 0, without a word."""
    assert f"got {held}" in rejected(field, value)


@pytest.mark.parametrize(
    ("field", "value", "plain"),
    [
        ("learning_rate", np.float32(0.5), 0.5),
        ("epochs", np.int64(3), 3),
        ("epochs", 3.0, 3),
        ("crop_area", [np.float32(0.5), np.int32(1)], (0.5, 1.0)),
        ("resize", np.str_("half_pixel"), "half_pixel"),
    ],
)
def test_values_of_numpy_become_plain(field, value, plain):
    accepted = getattr(recipes["slim_v2"].replace(**{field: value}), field)
    assert accepted == plain
    assert type(accepted) is type(plain)
    assert json.loads(json.dumps(accepted)) is not None


def test_a_recipe_is_checked_however_it_is_made():
    with pytest.raises(UsageError, match="epochs must be"):
        dataclasses.replace(recipes["quick"], epochs=0)
    values = recipes["quick"].as_dict()
    mine = km.Recipe("mine", "Made by hand.", **values)
    assert mine.sources == dict.fromkeys(FIELDS, "[yours]")
    with pytest.raises(UsageError, match="dropout must be"):
        km.Recipe("mine", "Made by hand.", **{**values, "dropout": 1})


NEUTRAL = {
    "freeze": None,
    "head_epochs": 0,
    "body_learning_rate": 1.0,
    "batch_norm": "train",
}


@pytest.mark.parametrize("name", sorted(set(recipes) - {"finetune"}))
def test_only_finetune_keeps_weights_as_they_are(name):
    assert {field: getattr(recipes[name], field) for field in NEUTRAL} == NEUTRAL


def test_a_recipe_of_before_there_was_finetuning():
    values = {k: v for k, v in recipes["slim_v2"].as_dict().items() if k not in NEUTRAL}
    assert km.Recipe("mine", "Made by hand.", **values) == dataclasses.replace(
        recipes["slim_v2"], name="mine", summary="Made by hand."
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"freeze": 3},
            "freeze must be 'body' .* or the name of a layer; got 3; or No",
        ),
        ({"freeze": " "}, "freeze must be 'body'"),
        ({"head_epochs": 121}, "head_epochs must be at most the 120 epochs.*got 121"),
        ({"head_epochs": -1}, "head_epochs must be a whole number of at least 0"),
        ({"body_learning_rate": 1.5}, "above 0 and at most 1; got 1.5"),
        ({"batch_norm": None}, "batch_norm must be one of 'train', 'frozen'"),
        ({"freeze": "body", "batch_norm": "recalibrate"}, "nothing to compute anew"),
    ],
)
def test_what_finetuning_cannot_be(settings, message):
    with pytest.raises(UsageError, match=message):
        recipes["flowers"].replace(**settings)


def test_no_crop_covers_more_than_its_area():
    with pytest.raises(UsageError, match="crop_min_covered must be at most .* 0.5"):
        recipes["slim_v2"].replace(crop_area=(0.2, 0.5), crop_min_covered=0.6)
    recipes["slim_v2"].replace(crop_area=None, crop_min_covered=0.6)


@pytest.mark.parametrize("epsilon", [0, 1e-50])
def test_the_first_update_may_not_divide_by_zero(epsilon):
    with pytest.raises(UsageError, match="epsilon must be above 0"):
        recipes["slim_v2"].replace(epsilon=epsilon, initial_accumulator=0)
    recipes["slim_v2"].replace(optimizer="sgd", epsilon=0, initial_accumulator=0)


def test_difference_is_where_they_differ():
    slim, paper = recipes["slim_v2"], recipes["paper_v2"]
    rows = difference(slim, paper)
    assert {row[0] for row in rows} == {
        "scale_learning_rate",
        "decay_epochs",
        "label_smoothing",
        "ema_decay",
    }
    (decay,) = (row for row in rows if row[0] == "decay_epochs")
    assert decay[1:3] == (2.5, 1.0)
    assert decay[3:] == (slim.sources["decay_epochs"], paper.sources["decay_epochs"])


def test_difference_mirrors():
    first, second = recipes["quick"], recipes["torchvision_v2"]
    mirrored = [(f, b, a, t, s) for f, a, b, s, t in difference(first, second)]
    assert difference(second, first) == mirrored
    assert difference(first, first) == []


def test_as_dict_is_json():
    for recipe in recipes.values():
        back = json.loads(json.dumps(recipe.as_dict()))
        assert set(back) == set(FIELDS)
        assert back["learning_rate"] == recipe.learning_rate


def test_recipes_can_be_sent_to_another_process():
    recipe = recipes["slim_v2"]
    again = pickle.loads(pickle.dumps(recipe))
    assert again == recipe
    assert again.sources == recipe.sources
