"""What can be given as `weights`, told from its name. No TensorFlow here.

Nothing is opened: what is in a file, the readers of models/weights say.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any, NamedTuple

from keras_mobilenets.architecture.arguments import shown
from keras_mobilenets.errors import UsageError

IMAGENET = "imagenet"

# Of a finished run, as training/workdir.py has them.
RUN_MODEL = "model.keras"
RUN_REPORT = "report.json"
RUN_SETTINGS = "settings.json"

KINDS = {
    ".keras": "keras",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".safetensors": "safetensors",
    ".tflite": "tflite",
}
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".tar", ".ckpt")
ACCEPTED = (
    'None, "imagenet", a .keras, .h5, .safetensors or .tflite file, the directory of '
    "a run, or the prefix of a TensorFlow checkpoint (model.ckpt-123)"
)
INDEX = ".index"  # of a TensorFlow checkpoint, beside its .data files


class Source(NamedTuple):
    """Where weights come from."""

    kind: str  # "imagenet", "keras", "hdf5", "safetensors", "tflite" or "checkpoint"
    path: pathlib.Path  # of a checkpoint, its prefix


def find_weights(weights: Any) -> Source:
    """Where the weights that were asked for lie, and of which kind they are.

    Raises:
        UsageError: there is no such file, or it is of a kind that is not read.

    >>> find_weights("imagenet").kind
    'imagenet'
    """
    if isinstance(weights, str) and weights == IMAGENET:
        return Source(IMAGENET, pathlib.Path())
    if not isinstance(weights, (str, os.PathLike)) or not os.fspath(weights):
        raise UsageError(f"weights must be {ACCEPTED}; got {shown(weights)}")
    given = os.fspath(weights)
    path = pathlib.Path(given if isinstance(given, str) else os.fsdecode(given))
    if "\0" in str(path):
        raise UsageError(f"weights must be {ACCEPTED}; got {shown(weights)}")
    prefix = _checkpoint(path.expanduser())
    if prefix is not None:
        return Source("checkpoint", prefix)
    path = path.expanduser()
    if path.is_dir():
        return Source("keras", _model_of_run(path))
    if path.suffix.lower() in PICKLES:
        raise UsageError(
            f"weights must be {ACCEPTED}; got {str(path)!r}, which is a pickle by its "
            "name: reading one can run any code, so none is read. In PyTorch: "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        )
    if not os.path.isfile(path):
        raise UsageError(f"weights must be {ACCEPTED}; got {str(path)!r}: not a file")
    if path.suffix.lower() not in KINDS:
        raise UsageError(
            f"weights must be {ACCEPTED}; got {str(path)!r}: save with model.save() "
            "or model.save_weights()"
        )
    return Source(KINDS[path.suffix.lower()], path)


def _checkpoint(path: pathlib.Path) -> pathlib.Path | None:
    """The prefix of the TensorFlow checkpoint that a path names, if it does."""
    name = path.name.split(".data-")[0].removesuffix(INDEX)
    prefix = path.with_name(name) if name else path
    return prefix if os.path.isfile(f"{prefix}{INDEX}") else None


def _model_of_run(folder: pathlib.Path) -> pathlib.Path:
    if all((folder / name).is_file() for name in (RUN_MODEL, RUN_REPORT)):
        return folder / RUN_MODEL
    hint = ""
    if (folder / RUN_SETTINGS).is_file():
        hint = ": the run in it is not finished"
    elif checkpoints := sorted(folder.glob(f"*{INDEX}")):
        hint = f": give {str(checkpoints[-1].with_suffix(''))!r}"
    raise UsageError(
        f"weights must be {ACCEPTED}; got {str(folder)!r}, a directory without "
        f"{RUN_MODEL} and {RUN_REPORT}{hint}"
    )
