"""The notebook: executed again, from top to bottom, as a reader would."""

import base64
import io
import json
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

import experiments

ROOT = Path(experiments.__file__).parent.parent
NOTEBOOK = ROOT / "experiments" / "notebooks" / "quickstart.ipynb"
SPEC = {
    "argv": [
        *(sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"),
        # TensorFlow's notices of its start, which no setting of its own stops
        "--IPKernelApp.capture_fd_output=False",
    ],
    "display_name": "Python 3",
    "language": "python",
}


def execute(folder):
    """The notebook with new outputs; it runs in `folder`, with this very Python."""
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
        nbformat.read(NOTEBOOK, as_version=4),
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(work)}},
    )
    client.create_kernel_manager()
    client.km.kernel_spec_manager.kernel_dirs = [str(kernel.parent)]
    return client.execute(env=environment)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    return execute(tmp_path_factory.mktemp("notebook"))


@pytest.fixture(params=["saved", pytest.param("executed", marks=pytest.mark.slow)])
def notebook(request):
    """The notebook as saved, and as just executed."""
    if request.param == "saved":
        return nbformat.read(NOTEBOOK, as_version=4)
    return request.getfixturevalue("executed")


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell.outputs]


def printed(notebook):
    return "".join(o.text for o in outputs(notebook) if o.output_type == "stream")


def test_is_whole(notebook):
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert all(cell.outputs for cell in code(notebook)[1:])
    assert notebook.metadata.kernelspec.name == "python3"


def test_outputs_are_clean(notebook):
    """No errors, no warnings, no progress bars, no paths of some machine."""
    assert {o.output_type for o in outputs(notebook)} <= {
        "stream", "execute_result", "display_data",
    }  # fmt: skip
    assert all(o.name == "stdout" for o in outputs(notebook) if "name" in o)
    text = printed(notebook)
    assert not re.search(r"\r|\x1b|[Ww]arning|/(home|tmp|root|usr|work|opt)\b", text)


def test_figures(notebook):
    figures = [o.data["image/png"] for o in outputs(notebook) if "data" in o]
    assert len(figures) == 3  # costs, curves, predictions
    for figure in figures:
        with Image.open(io.BytesIO(base64.b64decode(figure))) as image:
            image.load()
            assert min(image.size) > 200


def test_claims(notebook):
    text = printed(notebook)
    assert "300.8 M mult-adds, 3.54 M parameters" in text
    trained, own = (float(x) for x in re.findall(r"test accuracy ([\d.]+)%", text))
    assert trained >= 90
    assert own >= 80
    assert re.search(r"left behind: .*curves\.png.*model\.keras.*report\.json", text)
    assert "mobilenet_v2 alpha 0.5" in text
    assert "label_smoothing = 0.1" in text
