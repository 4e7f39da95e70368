"""The tutorial runs from top to bottom, and the notebook that is shown was made from its text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

DOCS = Path(__file__).parents[1] / "docs"
SIZES = "n_patches, n_epochs = 1_000, 8"


def read_text() -> Any:
    return jupytext.read(DOCS / "tutorial.md")


@pytest.fixture
def text() -> Any:
    return read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own libraries
def test_it_runs_from_top_to_bottom(text: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    (sizes,) = (cell for cell in text.cells if SIZES in cell.source)
    sizes.source = sizes.source.replace(SIZES, "n_patches, n_epochs = 120, 1")
    NotebookClient(text, timeout=250, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert count_pictures(text) == 6
    assert list((tmp_path / "data/tutorial/comparison").glob("*/*/best.keras"))


def test_the_notebook_was_made_from_the_text() -> None:
    path = DOCS / "tutorial.ipynb"
    made = nbformat.read(path, as_version=4)
    assert [cell.source for cell in made.cells] == [cell.source for cell in read_text().cells]
    outputs = [output for cell in made.cells for output in cell.get("outputs", ())]
    assert all(output.output_type in ("stream", "display_data") for output in outputs)
    assert {output.name for output in outputs if output.output_type == "stream"} == {"stdout"}
    assert count_pictures(made) == 6
    assert path.stat().st_size < 1_000_000


def count_pictures(notebook: Any) -> int:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return sum("image/png" in output.get("data", {}) for output in outputs)
