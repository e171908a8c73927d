"""The model card: what a model is, how good, on what, and how to make it again.

After Mitchell et al. 2019, "Model Cards for Model Reporting" (arXiv:1810.03993), as far
as a run knows it.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keras_mobilenets.given import Given
from keras_mobilenets.models.weights import Loaded
from keras_mobilenets.options import NOT_GIVEN, as_arguments, options_of
from keras_mobilenets.recipe import FIELDS, recipes
from keras_mobilenets.settings import GROUPS, Settings
from keras_mobilenets.text import count, printable

NAMES = {"mobilenet_v1": "MobileNetV1", "mobilenet_v2": "MobileNetV2"}
PAPERS = {"mobilenet_v1": "arXiv:1704.04861", "mobilenet_v2": "arXiv:1801.04381"}
MOST_CLASSES = 20  # that are named
FEW = 1000  # test images, below which an accuracy is known to a point or worse
Z = 1.96  # 95 % of a normal distribution


def make_card(report: Mapping[str, Any], settings: Settings) -> str:
    """Markdown about the model of a finished run, from its report.

    >>> print(make_card(run.report, settings).splitlines()[0])
    # MobileNetV2 0.35, 48 px, trained on digits
    """
    sections = {
        "What it is": _network(report, settings),
        "What it was trained on": _data(report, settings),
        "How good it is": _results(report),
        "What to mind": _limits(report, settings),
        "How to make it again": _repetition(report, settings),
        f"Recipe: {settings.recipe.name}": _recipe(settings),
    }
    title = (
        f"# {NAMES[settings.name]} {settings.alpha:g}, {settings.shape}, trained on "
        f"{_text(settings.data)}"
    )
    texts = [f"## {heading}\n\n{text}" for heading, text in sections.items()]
    return "\n\n".join([title, *texts]) + "\n"


def _text(value: Any) -> str:
    """Anything within a line of Markdown, or a cell of a table."""
    return printable(value).replace("|", "\\|")


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *([_text(c) for c in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _network(report: Mapping[str, Any], settings: Settings) -> str:
    cost, classes = report["cost"], report["classes"]
    named = ", ".join(map(_text, classes[:MOST_CLASSES]))
    more = f" and {len(classes) - MOST_CLASSES:,} more"
    varied = ", ".join(f"{k}={v!r}" for k, v in settings.variant.items())
    return _list(
        [
            f"{NAMES[settings.name]} ({PAPERS[settings.name]}), alpha "
            f"{settings.alpha:g}{', ' + varied if varied else ''}: "
            f"{cost['params']:,} parameters, {count(cost['macs'])} mult-adds, "
            f"{cost['peak_memory']:,} bytes of activations at most",
            f"in: images of {settings.shape}, float32 in [-1, 1], prepared as by "
            "`keras-mobilenets predict`",
            f"out: {'any' if report['multi_label'] else 'one'} of {len(classes):,} "
            f"classes: {named}"
            f"{more if len(classes) > MOST_CLASSES else ''}",
            "`model.keras` is of plain Keras layers, and loads without this package"
            + (
                "; its weights are the moving averages of training"
                if report["weights"] == "averaged"
                else ""
            ),
        ]
    )


def _data(report: Mapping[str, Any], settings: Settings) -> str:
    images, began = report["images"], report["pretrained"]
    lines = [
        f"{_text(settings.data)}: {images['train']:,} images for training, "
        f"{images['validation']:,} for validation, {images['test']:,} for testing",
        "`data.json` names each of them",
        "it began from random weights" if began is None else _text(Loaded(**began)),
    ]
    if "class_weights" in report:
        weights = report["class_weights"].items()
        said = ", ".join(f"{_text(k)} {v:.3g}" for k, v in list(weights)[:MOST_CLASSES])
        lines.append(f"classes counted differently in the loss: {said}")
    return _list(lines)


def _results(report: Mapping[str, Any]) -> str:
    rows = []
    for split in ("validation", "test"):
        images = report["images"][split]
        for name, value in report.get(split, {}).items():
            interval = None
            if name in ("accuracy", "top5"):
                low, high = interval_of(value, images)
                interval = f"{low:.2%} to {high:.2%}"
            shown = f"{value:.4f}" if name == "loss" else f"{value:.2%}"
            rows.append((split, images, name, shown, interval or "-"))
    return _table(["split", "images", "figure", "value", "95 % interval"], rows)


def interval_of(share: float, images: int) -> tuple[float, float]:
    """Between what a share of so many images lies, 19 times of 20 (Wilson 1927).

    >>> [round(end, 3) for end in interval_of(0.9778, 180)]
    [0.944, 0.991]
    """
    spread = Z**2 / images
    middle = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt((share * (1 - share) + spread / 4) / images) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def _limits(report: Mapping[str, Any], settings: Settings) -> str:
    images, classes = report["images"], len(report["classes"])
    lines = []
    if report["test_is_validation"]:
        lines.append(
            "there was no test split: its figures are of the validation images, by "
            "which the run was followed, and flatter it"
        )
    if images["test"] < FEW:
        lines.append(
            f"{images['test']:,} test images tell accuracies apart only by as much as "
            "the interval above is wide"
        )
    if not report["multi_label"]:
        lines.append(f"whatever is on an image, it says one of its {classes:,} classes")
    lines += [
        "figures are of images like those of the test split; other cameras, light or "
        "framing were not tried, nor was who or what is on them",
        "one run, of one seed: another one differs by some tenths of a point or more",
    ]
    if settings.recipe.measured:
        lines.append(f"the recipe, measured: {_text(settings.recipe.measured)}")
    return _list(lines)


def _repetition(report: Mapping[str, Any], settings: Settings) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items())
    command = command_of(settings)
    if command is None:
        how = (
            "Its data or its recipe were objects of Python: call `km.train` with the "
            "settings of `report.json` and with these again."
        )
    else:
        how = f"```sh\n{shlex.join(command)}\n```"
    exact = (
        "the same bit for bit, with the same versions on a like machine"
        if settings.deterministic
        else "the same images in the same order; sums may be added up in another order"
    )
    replicas = report["scale"]["replicas"]
    return (
        f"{how}\n\nSeed {settings.seed}: {exact}. On {replicas} "
        f"replica{'s' * (replicas > 1)}, {report['epochs']} epochs of "
        f"{report['steps_per_epoch']} steps. Made with {versions}."
    )


def command_of(settings: Settings) -> list[str] | None:
    """The command that trains with these settings; None where they hold objects."""
    named = recipes.get(settings.recipe.name)
    if isinstance(settings.data, Given) or named is None:
        return None
    given = {
        name: value
        for name, field in options_of(Settings).items()
        if name not in ("name", "rho", "recipe")
        and (value := getattr(settings, name)) is not NOT_GIVEN
        and (value != field.default or field.metadata["group"] in GROUPS)
    }
    changed = {
        name: value
        for name in FIELDS
        if (value := getattr(settings.recipe, name)) != getattr(named, name)
    }
    options = as_arguments({**given, "recipe": named.name, **changed})
    return ["keras-mobilenets", "train", settings.name, *options]


def _recipe(settings: Settings) -> str:
    recipe = settings.recipe
    rows = ((name, getattr(recipe, name), recipe.sources[name]) for name in FIELDS)
    return _table(["field", "value", "source"], rows)
