import nbformat
import pytest

from tests.experiments.notebooks import FOLDER, execute


@pytest.fixture(scope="module")
def executed(request, tmp_path_factory):
    """The module's NOTEBOOK, executed again."""
    return execute(
        FOLDER / request.module.NOTEBOOK, tmp_path_factory.mktemp("notebook")
    )


@pytest.fixture(params=["saved", pytest.param("executed", marks=pytest.mark.slow)])
def notebook(request):
    """The module's NOTEBOOK as saved, and as just executed."""
    if request.param == "saved":
        return nbformat.read(FOLDER / request.module.NOTEBOOK, as_version=4)
    return request.getfixturevalue("executed")
