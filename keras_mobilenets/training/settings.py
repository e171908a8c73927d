"""What decides a run: every argument of `train` that its result depends on."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from keras_mobilenets.architecture import Cost, cost
from keras_mobilenets.architecture.arguments import (
    NATIVE_RESOLUTION,
    VARIANTS,
    check_flag,
    check_integer,
    check_known,
    check_name,
)
from keras_mobilenets.recipe import FIELDS, Recipe, get_recipe, recipes

# What `train()` chooses where nothing is said: a run of a minute on the digits,
# and the authors' network and recipe on everything else.
QUICK_START = {"alpha": 0.35, "resolution": 48, "recipe": "quick"}
AUTHORS = {"mobilenet_v1": "slim_v1", "mobilenet_v2": "slim_v2"}
DATA_OPTIONS = ("broken", "splits", "memory_budget", "threads")  # of load_data

DEFAULTS: dict[str, Any] = {
    "name": "mobilenet_v2",
    "data": "digits",
    "alpha": None,
    "rho": None,
    "resolution": None,
    "recipe": None,
    "weights": None,
    "seed": 0,
    "data_dir": None,
    "deterministic": False,
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """A run's settings, checked and complete; JSON can hold them and give them back."""

    name: str
    alpha: float
    resolution: int
    variant: dict[str, Any]  # variations of the network
    data: Any
    data_dir: str | None
    data_options: dict[str, Any]
    weights: str | None
    seed: int
    deterministic: bool
    recipe: Recipe

    @property
    def network(self) -> dict[str, Any]:
        """What `cost` and `build` take besides the name and the classes."""
        return {"alpha": self.alpha, "resolution": self.resolution, **self.variant}

    def cost(self, classes: int = 1000) -> Cost:
        """Of the network with so many classes."""
        network = {k: v for k, v in self.network.items() if k != "batch_norm_epsilon"}
        return cost(self.name, classes=classes, **network)

    def as_dict(self) -> dict[str, Any]:
        """As JSON gives it back."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["recipe"] = {"name": self.recipe.name, **self.recipe.as_dict()}
        return json.loads(json.dumps(values))


def recipe_from(stored: Mapping[str, Any]) -> Recipe:
    """The recipe that `as_dict` or a report wrote down."""
    name = stored.get("name")
    # A recipe of the user's own has all its fields there.
    base = recipes[name if name in recipes else "quick"]
    fields = {field: stored[field] for field in FIELDS if field in stored}
    changed = {k: v for k, v in fields.items() if v != _plain(getattr(base, k))}
    return dataclasses.replace(base.replace(**changed), name=name or base.name)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _path(path: str | os.PathLike[str] | None) -> str | None:
    # A path object is a folder wherever one stands; its bare name is not.
    if isinstance(path, os.PathLike):
        return os.path.abspath(path)
    return path


def make_settings(
    arguments: Mapping[str, Any], stored: Mapping[str, Any] | None = None
) -> Settings:
    """Settings from the arguments of `train`, checked before anything is done.

    `stored` are those of a run to be continued: they stand in for arguments that are
    not given.

    Raises:
        ValueError: an unknown or impossible argument.
    """
    known = (*sum(VARIANTS.values(), ()), "batch_norm_epsilon")
    check_known("train()", arguments, (*DEFAULTS, *known, *FIELDS, *DATA_OPTIONS))
    given = {
        k: v for k, v in arguments.items() if k not in DEFAULTS or v is not DEFAULTS[k]
    }
    base = {**DEFAULTS, "variant": {}, "data_options": {}, **(stored or {})}
    if "rho" in given or "resolution" in given:
        base |= {"rho": None, "resolution": None}
    values = {k: given.get(k, base[k]) for k in DEFAULTS}

    name = check_name(values["name"])
    data = values["data"]
    quick = data == "digits"
    if values["rho"] is None and values["resolution"] is None:
        values["resolution"] = QUICK_START["resolution"] if quick else NATIVE_RESOLUTION
    if values["alpha"] is None:
        values["alpha"] = QUICK_START["alpha"] if quick else 1.0
    recipe = values["recipe"]
    if isinstance(recipe, Mapping):
        recipe = recipe_from(recipe)
    recipe = get_recipe(
        recipe or (QUICK_START["recipe"] if quick else AUTHORS[name]),
        **{k: v for k, v in given.items() if k in FIELDS},
    )
    variant = base["variant"] | {k: v for k, v in given.items() if k in known}
    network = {k: v for k, v in variant.items() if k != "batch_norm_epsilon"}
    priced = cost(  # checks all of them
        name,
        alpha=values["alpha"],
        rho=values["rho"],
        resolution=values["resolution"],
        **network,
    )
    options = {k: v for k, v in given.items() if k in DATA_OPTIONS}
    return Settings(
        name=name,
        alpha=float(values["alpha"]),
        resolution=priced.layers[0].layer.size_in,
        variant=variant,
        data=_path(data),
        data_dir=_path(values["data_dir"]),
        data_options=base["data_options"] | options,
        weights=_path(values["weights"]),
        seed=check_integer("seed", values["seed"], low=0),
        deterministic=check_flag("deterministic", values["deterministic"]),
        recipe=recipe,
    )


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Where two settings differ: 'epochs 5 there, 15 here', by field."""

    def flat(values: Mapping[str, Any]) -> dict[str, Any]:
        nested = {k: v for k, v in values.items() if isinstance(v, Mapping)}
        plain = {k: v for k, v in values.items() if k not in nested}
        recipe = {
            "recipe" if k == "name" else k: v
            for k, v in nested.pop("recipe", {}).items()
        }
        return {
            **plain,
            **recipe,
            **{k: v for n in nested.values() for k, v in n.items()},
        }

    here, there = flat(ours), flat(theirs)
    return [
        f"{field} {there.get(field)!r} there and {here.get(field)!r} here"
        for field in dict.fromkeys([*here, *there])
        if here.get(field) != there.get(field)
    ]
