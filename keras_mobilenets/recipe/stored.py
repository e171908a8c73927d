"""A recipe that was written down, in the settings of a run or in its report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from keras_mobilenets.errors import UsageError
from keras_mobilenets.recipe.named import recipes
from keras_mobilenets.recipe.record import FIELDS, NEUTRAL, Recipe
from keras_mobilenets.storage import json_value


def recipe_from(stored: Mapping[str, Any]) -> Recipe:
    """The recipe that `as_dict` or a report wrote down.

    Fields that it lacks, as of an older version, are those of the recipe of its name,
    or neutral.

    Raises:
        UsageError: it is not one.
    """
    name = stored.get("name")
    stored = stored if name in recipes else {**NEUTRAL, **stored}
    missing = [field for field in FIELDS if field not in stored]
    if not isinstance(name, str) or (missing and name not in recipes):
        lacks = ", ".join(missing[:3]) if isinstance(name, str) else "its name"
        raise UsageError(f"recipe must have all its fields; it lacks {lacks}")
    base = recipes.get(name, recipes["quick"])  # of one's own: all fields are stored
    changed = {
        field: stored[field]
        for field in FIELDS
        if field in stored and stored[field] != json_value(getattr(base, field))
    }
    return dataclasses.replace(base.replace(**changed), name=name)
