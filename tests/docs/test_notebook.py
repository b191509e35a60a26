"""The notebook in the docs runs from top to bottom in an empty folder."""

import nbformat
import pytest
from drive import REPOSITORY
from nbclient import NotebookClient


@pytest.mark.slow
def test_the_quickstart_notebook_runs(tmp_path):
    notebook = nbformat.read(REPOSITORY / "docs" / "quickstart.ipynb", as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    failed = [cell for cell in notebook.cells if cell.cell_type == "code" and not cell.execution_count]
    assert not failed
    assert (tmp_path / "tiny.run" / "_manifests" / "000001.json").exists()
