"""The machine that figures of speed come from."""

from __future__ import annotations

import contextlib
import os
import pathlib
import platform
from importlib import metadata
from typing import Any

# What a processor says that it has, and 8-bit arithmetic is fast with: x86, and ARM.
FAST = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8"),
    *("asimddp", "i8mm", "sve"),
)


def about_machine() -> dict[str, Any]:
    """Where figures come from, ready for JSON; it names no user, host or path.

    >>> about_machine()["cores"]
    2
    """
    processor, instructions = platform.processor(), set[str]()
    with contextlib.suppress(OSError):  # Linux alone has it
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = (part.strip() for part in line.partition(":"))
            if name == "model name":
                processor = value
            elif name.lower() in ("flags", "features"):
                instructions = set(value.split())
    return {
        "processor": processor or platform.machine(),
        "instructions": [name for name in FAST if name in instructions],
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "keras": metadata.version("keras"),
        "tensorflow": metadata.version("tensorflow"),
        "note": "where others work on it too, read the ratios",
    }
