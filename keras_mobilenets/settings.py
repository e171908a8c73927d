"""What decides a run: the options of `train` that its result depends on.

Each option is one field: its default, its check and its help are here and nowhere
else. The signature of `train`, the command line, settings.json, the report and the
comparison of a run with the one that it continues follow from it. No TensorFlow here.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from keras_mobilenets.architecture import Cost, cost
from keras_mobilenets.architecture.arguments import (
    NATIVE_RESOLUTION,
    check_alpha,
    check_channels,
    check_choice,
    check_flag,
    check_known,
    check_name,
    check_number,
    check_resolution,
    check_variant,
    rho_of,
)
from keras_mobilenets.architecture.shapes import Resolution, plain
from keras_mobilenets.errors import UsageError
from keras_mobilenets.given import (
    MEMORY_BUDGET,
    Given,
    check_class_weight,
    is_table,
    reference,
    take,
)
from keras_mobilenets.options import (
    NOT_GIVEN,
    check_options,
    is_given,
    none_or,
    option,
    options_of,
    whole,
)
from keras_mobilenets.recipe import (
    FIELDS,
    NEUTRAL,
    Recipe,
    check_freeze,
    get_recipe,
    recipe_from,
)
from keras_mobilenets.storage import check_path

# What `train()` chooses where nothing is said: a run of a minute on the digits,
# and the authors' network and recipe on everything else.
QUICK_START: dict[str, Any] = {"alpha": 0.35, "resolution": 48, "recipe": "quick"}
AUTHORS = {"mobilenet_v1": "slim_v1", "mobilenet_v2": "slim_v2"}

MOST_BYTES = 2**50


def _source(name: str, value: Any) -> str | Given:
    """A name stays a name; what can only be a path becomes absolute."""
    value = take(value)
    if isinstance(value, Given) or reference(os.fspath(value)):
        return value
    is_path = isinstance(value, os.PathLike) or value.startswith((".", "~", os.sep))
    return check_path("data", value) if is_path or is_table(value) else value


def take_data(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments whose `data`, if it is an object, has been read, once."""
    if arguments.get("data", NOT_GIVEN) is NOT_GIVEN:
        return dict(arguments)
    budget = arguments.get("memory_budget", NOT_GIVEN)
    if budget is NOT_GIVEN:
        budget = MEMORY_BUDGET
    budget = whole(0, MOST_BYTES)("memory_budget", budget)
    return {**arguments, "data": take(arguments["data"], budget)}


def _weights(name: str, value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value == "imagenet"):
        return value
    return check_path(name, value)


def _recipe(name: str, value: Any) -> Recipe:
    return recipe_from(value) if isinstance(value, Mapping) else get_recipe(value)


def _variation(name: str, value: Any) -> Any:
    """Which network has it, and what it may be, is for `check_variant`."""
    return value


def _splits(name: str, value: Any) -> dict[str, str]:
    pairs = value.items() if isinstance(value, Mapping) else [(None, None)]
    if not all(isinstance(part, str) for pair in pairs for part in pair):
        raise UsageError(
            "splits must name splits of a TFDS dataset, such as "
            f"{{'train': 'train[:50%]'}}; got {value!r}"
        )
    return dict(value)


def _feature(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{name} must be a name; got {value!r}")
    return value


@dataclasses.dataclass(frozen=True)
class Settings:
    """Every option of a run that its result depends on.

    Made by `make_settings`, and then complete: of the variations of the network and
    of the data options only those are there that were given.
    """

    name: str = option(
        lambda _, value: check_name(value),
        "mobilenet_v1 or mobilenet_v2 (default)",
        "mobilenet_v2",
    )
    data: str | Given = option(
        _source,
        "digits (default), a TFDS name, a folder of class folders, or a CSV file of "
        "path,label[,split]; from Python also a list of (path, label), arrays (images, "
        "labels) or a tf.data.Dataset",
        "digits",
        text=True,
    )
    alpha: float = option(
        lambda _, value: check_alpha(value),
        "width multiplier (default 1.0; 0.35 on digits)",
        none_is_default=True,
    )
    rho: float | None = option(
        lambda _, value: rho_of(check_resolution(value, None)),
        "resolution multiplier of 224, for squares",
        none_is_default=True,
    )
    resolution: Resolution = option(
        lambda _, value: check_resolution(None, value),
        "the same in pixels of a side, or (height, width), on the command line "
        "HEIGHTxWIDTH such as 96x160 (default 224; 48 on digits)",
        none_is_default=True,
    )
    channels: int = option(
        lambda _, value: check_channels(value),
        "of the network's input: 3 (RGB, default), 1 (grey) or 4 (RGB and alpha)",
        3,
    )
    recipe: Recipe = option(
        _recipe,
        "a name from 'keras-mobilenets recipes', or a Recipe (default slim_v1 or "
        "slim_v2; quick on digits)",
        text=True,
        none_is_default=True,
    )
    weights: str | None = option(
        _weights,
        "to start from: imagenet, a file, the directory of a run, or the prefix of a "
        "TensorFlow checkpoint; a classifier of another number of classes stays new",
        None,
        text=True,
    )
    seed: int = option(
        whole(0, 2**63 - 1),
        "of weights, order, augmentation and dropout (default 0)",
        0,
    )
    deterministic: bool = option(
        check_flag,
        "TensorFlow's deterministic operations: the same result bit for bit, also "
        "when killed and resumed; slower on GPUs",
        False,
    )
    data_dir: str | None = option(
        none_or(check_path), "where TFDS keeps its prepared data", None, text=True
    )

    # Variations of the network, as in `build`.
    shallow: bool = option(
        _variation, "V1 without its five like blocks (V1 Table 5)", group="variant"
    )
    separable: bool = option(
        _variation, "V1: no for full convolutions (V1 Table 4)", group="variant"
    )
    expansion: float = option(
        _variation, "V2: factor of the bottlenecks, 1 or more", group="variant"
    )
    linear_bottleneck: bool = option(
        _variation, "V2: no for ReLU6 behind projections (figure 6a)", group="variant"
    )
    shortcut: str = option(
        _variation, "V2: bottleneck, expansion or none (figure 6b)", group="variant"
    )
    output_stride: int | None = option(
        _variation, "2, 4, 8, 16 or 32: dilation keeps the map larger", group="variant"
    )
    activation: str = option(
        _variation, "relu6 (all released code) or relu (V1's text)", group="variant"
    )
    padding: str = option(
        _variation,
        "same (TensorFlow's, default) or symmetric (PyTorch's, for its weights)",
        group="variant",
    )
    batch_norm_epsilon: float = option(
        lambda name, value: check_number(name, value, low=0, high=1),
        "added to variances (default 0.001)",
        group="variant",
    )

    # As in `load_data`.
    splits: dict[str, str] = option(
        _splits, "TFDS splits to take: {'train': 'train[:50%]'}", group="data_options"
    )
    label: str = option(
        _feature,
        "the label: a feature of a TFDS dataset, or a column of a CSV file",
        group="data_options",
        text=True,
    )
    image: str = option(
        _feature,
        "the image, likewise, or the path",
        group="data_options",
        text=True,
    )
    multi_label: bool = option(
        check_flag,
        "whether an image may have several labels, or none: joined in a CSV file, as "
        "cat|dog",
        group="data_options",
        none_is_default=True,
    )
    broken: str = option(
        lambda name, value: check_choice(name, value, ("skip", "fail")),
        "what becomes of files that cannot be read: skip (default) or fail",
        group="data_options",
    )
    class_weight: Any = option(
        check_class_weight,
        "what an image counts in the training loss: balanced (as many as its class has "
        "fewer), or a mapping {'cat': 2} of classes, of which others have 1",
        group="data_options",
        none_is_default=True,
    )
    memory_budget: int = option(
        whole(0, MOST_BYTES), "bytes a split may take in memory", group="data_options"
    )
    threads: int = option(
        whole(1, 4096), "of the input pipeline's own pool", group="data_options"
    )

    @property
    def variant(self) -> dict[str, Any]:
        """The variations of the network that were given."""
        return _group(self, "variant")

    @property
    def data_options(self) -> dict[str, Any]:
        """The options of `load_data` that were given."""
        return _group(self, "data_options")

    @property
    def network(self) -> dict[str, Any]:
        """What `cost` and `build` take besides the name and the classes."""
        shape = {"resolution": self.resolution, "channels": self.channels}
        return {"alpha": self.alpha, **shape, **self.variant}

    @property
    def shape(self) -> str:
        """Of the images, in words: '224 px', '96x160 px, 1 channel'."""
        channels = {1: ", 1 channel", 3: "", 4: ", 4 channels"}[self.channels]
        return f"{plain(self.resolution)} px{channels}"

    def cost(self, classes: int = 1000) -> Cost:
        """Of the network with so many classes."""
        network = {k: v for k, v in self.network.items() if k != "batch_norm_epsilon"}
        return cost(self.name, classes=classes, **network)

    def as_dict(self) -> dict[str, Any]:
        """As JSON gives it back; `make_settings({}, stored)` makes it again."""
        values = {
            name: getattr(self, name)
            for name, field in options_of(type(self)).items()
            if field.metadata["group"] is None
        }
        values |= {group: _group(self, group) for group in GROUPS}
        values["data"] = str(self.data)  # of objects, what they are known by
        values["recipe"] = {"name": self.recipe.name, **self.recipe.as_dict()}
        return json.loads(json.dumps(values))


def _group(settings: Settings, group: str) -> dict[str, Any]:
    return {
        name: getattr(settings, name)
        for name, field in options_of(Settings).items()
        if field.metadata["group"] == group and getattr(settings, name) is not NOT_GIVEN
    }


GROUPS = ("variant", "data_options")


def make_settings(
    arguments: Mapping[str, Any],
    stored: Mapping[str, Any] | None = None,
    *,
    where: str = "train()",
) -> Settings:
    """Settings from what was given, checked before anything is done.

    Fields of the recipe may be among the arguments. `stored` are those of a run that
    is continued, as `as_dict` or a report has them: they stand in for what is not
    given.

    Raises:
        UsageError: an unknown or impossible argument.

    >>> make_settings({"alpha": 0.5, "epochs": 3}).recipe.epochs
    3
    """
    options = options_of(Settings)
    check_known(where, arguments, (*options, *FIELDS))
    arguments = take_data(arguments)
    overrides = {
        name: value
        for name, value in arguments.items()
        if name in FIELDS and name not in options and value is not NOT_GIVEN
    }
    given = {
        name: value
        for name, value in arguments.items()
        if name in options and is_given(options[name], value)
    }
    if "rho" in given and "resolution" in given:
        check_resolution(given["rho"], given["resolution"])
    values = _flat(stored or {})
    if "rho" in given or "resolution" in given:
        values = {k: v for k, v in values.items() if k not in ("rho", "resolution")}
    values = check_options(Settings, {**values, **given})

    quick = values.get("data", "digits") == "digits"
    name = values.setdefault("name", options["name"].default)
    values.setdefault("alpha", QUICK_START["alpha"] if quick else 1.0)
    if "rho" in values:
        values["resolution"] = round(values["rho"] * NATIVE_RESOLUTION)
    values.setdefault(
        "resolution", QUICK_START["resolution"] if quick else NATIVE_RESOLUTION
    )
    values["rho"] = rho_of(values["resolution"])
    recipe = values.get("recipe") or (QUICK_START["recipe"] if quick else AUTHORS[name])
    values["recipe"] = get_recipe(recipe, **overrides)
    settings = Settings(**values)
    variant = {k: v for k, v in settings.variant.items() if k != "batch_norm_epsilon"}
    settings = dataclasses.replace(settings, **check_variant(name, variant))
    settings.cost()  # a combination that makes no network
    _check_finetuning(settings)
    return settings


def _check_finetuning(settings: Settings) -> None:
    """Refuse to freeze layers that the network has not, or that hold random weights."""
    recipe = settings.recipe
    layers = [row.name for row in settings.cost().layers]
    check_freeze(recipe.freeze, layers[:-1], settings.name)
    kept = {
        "freeze": recipe.freeze,
        "head_epochs": recipe.head_epochs or None,
        "batch_norm": "frozen" if recipe.batch_norm == "frozen" else None,
    }
    kept = {field: value for field, value in kept.items() if value is not None}
    if kept and settings.weights is None:
        given = ", ".join(f"{field}={value!r}" for field, value in kept.items())
        off = ", ".join(f"{field}={NEUTRAL[field]!r}" for field in kept)
        raise UsageError(
            f"weights must be given for {given} (recipe {recipe.name!r}), which keep "
            "what is there before training; got None, so that would be random: give "
            f"weights=FILE or 'imagenet', or {off}"
        )


def _flat(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings, of which nothing is known yet, as arguments."""
    options = options_of(Settings)
    flat = {k: v for k, v in stored.items() if k in options and k not in GROUPS}
    for group in GROUPS:
        values = stored.get(group, {})
        if not isinstance(values, Mapping):
            raise UsageError(f"{group} must be a mapping of options; got {values!r}")
        check_known(group, values, options)
        flat |= values
    if flat and not isinstance(flat.get("recipe"), Mapping):
        raise UsageError(
            f"recipe must be a mapping of its fields; got {flat.get('recipe')!r}"
        )
    return flat


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Where two settings differ: 'epochs 5 there and 15 here', by field."""

    def flat(values: Mapping[str, Any]) -> dict[str, Any]:
        plain = {k: v for k, v in values.items() if not isinstance(v, Mapping)}
        for group in GROUPS:
            plain |= values.get(group, {})
        recipe = values.get("recipe", {})
        return plain | {"recipe" if k == "name" else k: v for k, v in recipe.items()}

    here, there = flat(ours), flat(theirs)
    return [
        f"{field} {there.get(field)!r} there and {here.get(field)!r} here"
        for field in dict.fromkeys([*here, *there])
        if here.get(field) != there.get(field)
    ]
