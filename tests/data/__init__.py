"""Numbers that the package is held to; each file names its source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read(name: str) -> dict[str, Any]:
    """One of the files here, by name without its ending."""
    return json.loads((Path(__file__).parent / f"{name}.json").read_text())
