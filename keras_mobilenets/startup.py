"""TensorFlow started without its notices, save those of a GPU that it cannot use.

No TensorFlow at the top of this module: importing it is what it does.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import IO

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
QUIET, WARNINGS = "2", "1"  # errors only; warnings too
ABOUT_GPUS = re.compile(
    r"gpu|cuda|cuinit|cudnn|nccl|nvidia|dlopen|\.so\b", re.IGNORECASE
)


def has_nvidia() -> bool:
    """Whether this machine has a device of NVIDIA that a process is to see.

    CUDA_VISIBLE_DEVICES of "" or "-1" hides all on purpose.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    return (
        bool(glob.glob("/dev/nvidia[0-9]*")) or shutil.which("nvidia-smi") is not None
    )


def start_tensorflow() -> None:
    """Import TensorFlow without its notices.

    TensorFlow 2.21 writes some straight to the descriptor, before it reads its log
    level. Those that tell why an NVIDIA device is not used are shown where there is
    one, and all where the import fails. A user's own TF_CPP_MIN_LOG_LEVEL lets all
    through.
    """
    if LEVEL in os.environ or "tensorflow" in sys.modules:
        return
    nvidia = has_nvidia()
    os.environ[LEVEL] = WARNINGS if nvidia else QUIET
    with tempfile.TemporaryFile() as notices:
        try:
            with stderr_to(notices):
                import tensorflow as tf

                # The libraries of a GPU are loaded by the first look at the devices.
                unused = nvidia and not tf.config.list_physical_devices("GPU")
                if not nvidia:  # where that only complains of CUDA
                    tf.config.list_physical_devices()
        except Exception:
            _show(notices, re.compile(""))
            raise
        if unused:
            _show(notices, ABOUT_GPUS)


def other_backend() -> str | None:
    """What is wrong where Keras does not run on TensorFlow; None where it does."""
    try:
        import keras
    except ModuleNotFoundError as error:  # KERAS_BACKEND of another project
        found = f"Keras cannot load its own ({error})"
    else:
        if keras.config.backend() == "tensorflow":
            return None
        found = f"got the backend {keras.config.backend()!r}"
    return (
        f"needs Keras on TensorFlow; {found}: set KERAS_BACKEND=tensorflow before "
        "Keras is imported (keras_mobilenets.build works on every backend)"
    )


def _show(notices: IO[bytes], wanted: re.Pattern[str]) -> None:
    notices.seek(0)
    for line in notices.read().decode(errors="replace").splitlines():
        if wanted.search(line):
            print(line, file=sys.stderr)


@contextlib.contextmanager
def stderr_to(file: IO[bytes]) -> Iterator[None]:
    """What this process writes to its descriptor 2 goes to `file`."""
    sys.stderr.flush()
    before = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)
