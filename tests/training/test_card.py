"""The model card: its figures, and the command in it."""

import dataclasses
import re
import shlex

import pytest

from keras_mobilenets.__main__ import _make_parser
from keras_mobilenets.execution import Execution
from keras_mobilenets.options import given_options
from keras_mobilenets.recipe import Recipe, recipes
from keras_mobilenets.settings import Settings, make_settings
from keras_mobilenets.training import workdir as work
from keras_mobilenets.training.card import command_of, interval_of, make_card


def read(command):
    """The settings that a command stands for."""
    arguments = _make_parser().parse_args(command[1:])
    return make_settings(given_options(arguments, Settings, Execution, Recipe))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"name": "mobilenet_v1", "alpha": 0.25, "shallow": True, "separable": False},
        {"resolution": (96, 160), "channels": 1, "deterministic": True, "seed": 7},
        {"data": "oxford_flowers102", "splits": {"train": "train[:50%]"}, "rho": 0.571},
        {"data": "./-dash |and\n`tick`.csv", "label": "1", "multi_label": False},
        {"class_weight": {"cat dog": 2.0}, "threads": 2, "broken": "fail"},
        {"recipe": "slim_v2", "epochs": 3, "ema_decay": None, "crop_area": (0.5, 1)},
        {"recipe": "paper_v1", "name": "mobilenet_v1", "learning_rate": 0.01},
        {"output_stride": None, "expansion": 4, "shortcut": "none"},
    ],
    ids=lambda given: "-".join(given) or "default",
)
def test_the_command_is_the_run(given):
    settings = make_settings(given)
    command = command_of(settings)
    assert shlex.split(shlex.join(command)) == command
    assert read(command) == settings
    assert read(command).as_dict() == settings.as_dict()


def test_objects_have_no_command():
    recipe = recipes["quick"].replace(epochs=1)
    assert command_of(make_settings({"recipe": recipe})) is not None
    own = dataclasses.replace(recipe, name="mine")
    assert command_of(make_settings({"recipe": own})) is None


def test_interval():
    """As statsmodels' proportion_confint(176, 180, method="wilson") says."""
    assert interval_of(176 / 180, 180) == pytest.approx((0.9443, 0.9913), abs=1e-4)
    assert interval_of(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert interval_of(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


def test_card_of_a_run(run):
    text = (run.workdir / work.CARD).read_text()
    settings, _ = work.read_settings(run.workdir)
    _, report = work.read_report(run.workdir)
    assert text == make_card(report, settings)
    assert text.startswith("# MobileNetV1 0.25, 32 px, trained on digits\n")
    assert f"{report['cost']['params']:,} parameters" in text
    assert f"| test | 180 | accuracy | {report['test']['accuracy']:.2%} |" in text
    assert "| label_smoothing | 0.1 | [yours] |" in text
    (command,) = re.findall(r"```sh\n(.*)\n```", text)
    assert read(shlex.split(command)) == settings


def test_names_do_not_break_the_page(run):
    settings, report = work.read_report(run.workdir)
    report = {**report, "classes": ["a|b\nc", *report["classes"][1:]]}
    assert r"a\|b\nc, 1, 2" in make_card(report, settings)
