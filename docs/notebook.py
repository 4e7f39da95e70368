"""Make the notebook of the tutorial from its text: run it, and keep what it prints and draws."""

from __future__ import annotations

from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

DOCS = Path(__file__).parent


def main() -> None:
    """Run docs/tutorial.md from the project's folder and write docs/tutorial.ipynb."""
    notebook = jupytext.read(DOCS / "tutorial.md")
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": DOCS.parent}}
    ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
        if "outputs" in cell:  # TensorFlow's words about itself go to stderr
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.write(notebook, DOCS / "tutorial.ipynb")


if __name__ == "__main__":
    main()
