"""Notebooks of experiments/: executed again, from top to bottom, as a reader would."""

import base64
import io
import json
import os
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

import experiments

ROOT = Path(experiments.__file__).parent.parent
FOLDER = ROOT / "experiments" / "notebooks"

SPEC = {
    "argv": [
        *(sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"),
        # TensorFlow's notices of its start, which no setting of its own stops
        "--IPKernelApp.capture_fd_output=False",
    ],
    "display_name": "Python 3",
    "language": "python",
}


def execute(notebook, folder):
    """A notebook with new outputs; it runs in `folder`, with this very Python."""
    kernel = folder / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps(SPEC))
    work = folder / "work"
    work.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TFDS_DATA_DIR": str(folder / "data"),
        "TMPDIR": str(work),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    client = NotebookClient(
        nbformat.read(notebook, as_version=4),
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(work)}},
    )
    client.create_kernel_manager()
    client.km.kernel_spec_manager.kernel_dirs = [str(kernel.parent)]
    return client.execute(env=environment)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell.outputs]


def printed(notebook):
    return "".join(o.text for o in outputs(notebook) if o.output_type == "stream")


def check_whole(notebook):
    """Every cell was run, in order."""
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert all(cell.outputs for cell in code(notebook)[1:])
    assert notebook.metadata.kernelspec.name == "python3"


def check_outputs(notebook):
    """No errors, no warnings, no progress bars, no paths of some machine."""
    assert {o.output_type for o in outputs(notebook)} <= {
        "stream", "execute_result", "display_data",
    }  # fmt: skip
    assert all(o.name == "stdout" for o in outputs(notebook) if "name" in o)
    text = printed(notebook)
    assert not re.search(r"\r|\x1b|[Ww]arning|/(home|tmp|root|usr|work|opt)\b", text)


def check_figures(notebook, count, smallest):
    """So many pictures, each of at least so many pixels a side."""
    data = [output.get("data", {}) for output in outputs(notebook)]
    figures = [one["image/png"] for one in data if "image/png" in one]
    assert len(figures) == count
    for figure in figures:
        with Image.open(io.BytesIO(base64.b64decode(figure))) as image:
            image.load()
            assert min(image.size) > smallest
