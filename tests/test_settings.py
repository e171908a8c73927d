"""The record of a run's options, and what follows from it."""

import dataclasses
import inspect
import json

import pytest

import keras_mobilenets as km
from keras_mobilenets.__main__ import _make_parser
from keras_mobilenets.errors import UsageError
from keras_mobilenets.execution import Execution
from keras_mobilenets.options import NOT_GIVEN, given_options, options_of
from keras_mobilenets.recipe import FIELDS, Recipe, recipe_from
from keras_mobilenets.settings import Settings, differences, make_settings

GIVEN = {
    "plain": {},
    "everything": {
        "name": "mobilenet_v1",
        "data": "./photos",
        "rho": 0.857,
        "weights": "start.keras",
        "seed": 3,
        "shallow": True,
        "activation": "relu",
        "batch_norm_epsilon": 0.01,
        "epochs": 3,
        "ema_decay": None,
        "splits": {"train": "train[:5%]"},
        "broken": "fail",
        "threads": 1,
    },
    "two sides": {"resolution": (96, 160), "channels": 1},
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_what_is_stored_makes_the_same_settings(given):
    settings = make_settings(given)
    stored = json.loads(json.dumps(settings.as_dict()))
    again = make_settings({}, stored)
    assert again.as_dict() == stored
    assert differences(again.as_dict(), stored) == []


def test_defaults_are_a_quick_start_on_digits_and_the_authors_elsewhere():
    quick, theirs = make_settings({}), make_settings({"data": "imagenet2012"})
    assert (quick.alpha, quick.resolution, quick.recipe.name) == (0.35, 48, "quick")
    assert (theirs.alpha, theirs.resolution) == (1.0, 224)
    assert theirs.recipe.name == "slim_v2"
    first = make_settings({"data": "imagenet2012", "name": "mobilenet_v1"})
    assert first.recipe.name == "slim_v1"


def test_a_default_that_is_given_is_not_the_same_as_none_given():
    """A stored V1 run of seed 5, continued with the defaults said aloud."""
    stored = make_settings({"name": "mobilenet_v1", "seed": 5}).as_dict()
    assert make_settings({}, stored).seed == 5
    asked = make_settings({"name": "mobilenet_v2", "seed": 0}, stored)
    assert (asked.name, asked.seed) == ("mobilenet_v2", 0)
    assert "seed 5 there and 0 here" in differences(asked.as_dict(), stored)


def test_the_resolution_multiplier_is_not_rmsprops_decay():
    settings = make_settings({"rho": 0.5})
    assert settings.resolution == 112
    assert settings.recipe.rmsprop_decay == km.recipes["quick"].rmsprop_decay


def test_two_sides_are_stored_as_a_pair_without_rho():
    settings = make_settings({"resolution": (96, 160), "channels": 4})
    stored = settings.as_dict()
    assert (stored["resolution"], stored["rho"]) == ([96, 160], None)
    assert settings.shape == "96x160 px, 4 channels"
    assert settings.cost(10) == km.cost(
        alpha=0.35, resolution=(96, 160), channels=4, classes=10
    )
    assert make_settings({"resolution": "96x96"}).as_dict()["resolution"] == 96
    square = make_settings({"resolution": 96}, stored)
    assert (square.resolution, square.rho, square.channels) == (96, 96 / 224, 4)
    assert "resolution [96, 160] there and 96 here" in differences(
        square.as_dict(), stored
    )


def test_a_run_of_an_older_version_is_of_rgb():
    older = make_settings({"rho": 0.5}).as_dict()
    del older["channels"]
    assert make_settings({}, older) == make_settings({"resolution": 112})


def test_no_two_options_have_one_name():
    options = [*options_of(Settings), *options_of(Execution), *FIELDS]
    assert len(options) == len(set(options))


def test_train_has_the_signature_and_arguments_of_the_records():
    parameters = inspect.signature(km.train).parameters
    options = {**options_of(Settings), **options_of(Execution)}
    assert set(options) | {"options"} == set(parameters)
    assert parameters["checkpoint_steps"].default == 1000
    for name, field in options.items():
        assert f"{name}: {field.metadata['help']}" in km.train.__doc__


def test_every_option_reaches_the_command_line():
    """A field of a record is an option of `train` by being there."""
    (verbs,) = (a for a in _make_parser()._actions if a.metavar == "VERB")
    known = {action.dest for action in verbs.choices["train"]._actions}
    assert known >= {*options_of(Settings), *FIELDS}
    assert known >= set(options_of(Execution)) - {"verbose"}
    line = ["train", "--epochs", "3", "--no-flip", "--ema-decay", "None", "--seed", "0"]
    arguments = _make_parser().parse_args(line)
    given = given_options(arguments, Settings, Execution, Recipe)
    assert given == {"epochs": 3, "flip": False, "ema_decay": None, "seed": 0}


def test_a_new_recipe_field_is_one_line_and_its_use(monkeypatch):
    """It reaches the report and the check of a run that is continued by itself."""
    settings = make_settings({})
    stored = settings.as_dict()
    assert set(stored["recipe"]) == {"name", *FIELDS}
    changed = dataclasses.replace(settings, recipe=settings.recipe.replace(flip=True))
    assert differences(changed.as_dict(), stored) == ["flip False there and True here"]


@pytest.mark.parametrize(
    "stored",
    [{}, {"name": "mine"}, {"name": 3}, {"name": "quick", "epochs": "many"}],
    ids=["empty", "unknown and incomplete", "no text", "of another kind"],
)
def test_what_is_no_recipe_is_refused(stored):
    with pytest.raises(UsageError, match=r"recipe must|epochs must"):
        recipe_from(stored)


def test_a_recipe_of_an_older_version_lacks_a_field():
    older = {"name": "slim_v2", **km.recipes["slim_v2"].as_dict()}
    del older["exif_orientation"]
    assert recipe_from(older) == km.recipes["slim_v2"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"self": 1}, "no argument 'self'"),
        ({"verbose": 7}, "no argument 'verbose'"),
        ({"expansion": "{[]:1}"}, "expansion must"),
        ({"data": ["a"]}, r"source\[0\] must be a pair"),
        ({"data": "./a\0b"}, "data must be a path"),
        ({"weights": 3}, "weights must"),
        ({"data_dir": ""}, "data_dir must be a path"),
        ({"splits": "train"}, "splits must name splits"),
        ({"memory_budget": -1}, "memory_budget must"),
        ({"threads": 10**23}, "threads must"),
        ({"seed": 2**63}, "seed must"),
        ({"seed": True}, "seed must"),
        ({"channels": 2}, "channels must be one of 1, 3, 4; got 2"),
        ({"resolution": (96, 160, 3)}, "resolution must .* channels"),
        ({"rho": 0.5, "resolution": (96, 160)}, "not both"),
        ({"deterministic": 1}, "deterministic must be True or False"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_impossible_values_are_named(given, message):
    with pytest.raises(UsageError, match=message):
        make_settings(given)


def test_not_given_is_a_value_of_its_own():
    assert repr(NOT_GIVEN) == "not given"
    assert make_settings({"seed": NOT_GIVEN, "alpha": None}) == make_settings({})
