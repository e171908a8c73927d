"""What a network has that its weights do not show, read from a Keras config."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

ENDS = "classifier_activation"


def traits_of(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The arguments of `build` by which networks of equal weights differ.

    Args:
        layers: as `model.get_config()["layers"]` has them, of a model of `build`.
    """
    by_name = {layer["config"]["name"]: layer for layer in layers}

    def value(name: str, field: str) -> Any:
        return by_name[name]["config"][field]

    traits: dict[str, Any] = {}
    if "predictions" in by_name:
        traits[ENDS] = value("predictions", "activation")
    if "stem_bn" in by_name:
        traits["batch_norm_epsilon"] = float(value("stem_bn", "epsilon"))
    if "stem_relu" in by_name:
        six = value("stem_relu", "max_value")
        traits["activation"] = "relu" if six is None else f"relu{six:g}"
    traits["padding"] = "symmetric" if "stem_pad" in by_name else "same"
    if "block_2_expand" in by_name or "top" in by_name:
        projections = [n for n in by_name if re.fullmatch(r"block_\d+_project_relu", n)]
        traits["linear_bottleneck"] = not projections
        adds = [layer for name, layer in by_name.items() if name.endswith("_add")]
        traits["shortcut"] = "none"
        if adds:
            sources = json.dumps(adds[0]["inbound_nodes"], default=str)
            traits["shortcut"] = "expansion" if "_expand" in sources else "bottleneck"
    return traits
