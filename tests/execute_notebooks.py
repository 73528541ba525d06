"""Executes the notebooks and saves their outputs: ``python tests/execute_notebooks.py [NAME]``."""

import hashlib
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def source_hash(notebook: NotebookNode) -> str:
    """SHA-256 of all cells: says whether outputs belong to them."""
    text = "\n\n".join(f"{cell.cell_type}\n{cell.source}" for cell in notebook.cells)
    return hashlib.sha256(text.encode()).hexdigest()


def execute(
    path: Path,
    folder: Path,
    changes: str = "",
    check: str = "",
    kernel: AsyncKernelManager | None = None,
) -> NotebookNode:
    """A notebook with the outputs that it has now, and only its own cells.

    Args:
        path: of the notebook.
        folder: where it runs.
        changes: code after the cell tagged ``parameters``, such as smaller settings.
        check: code after the last cell.
        kernel: of notebooks before this one, whose variables are cleared; None for its own.
    """
    notebook = nbformat.read(path, as_version=4)
    own = list(notebook.cells)
    tagged = [k for k, cell in enumerate(own) if "parameters" in cell.metadata.get("tags", ())]
    assert len(tagged) == 1, f"{path.name}: one cell must have the tag `parameters`"
    added = {tagged[0]: changes, len(own) - 1: check}
    notebook.cells = [nbformat.v4.new_code_cell("%reset_selective -f ^[a-z]")] if kernel else []
    for number, cell in enumerate(own):
        notebook.cells.append(cell)
        if added.get(number):
            notebook.cells.append(nbformat.v4.new_code_cell(added[number]))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")  # tqdm without widgets
    client = NotebookClient(
        notebook, km=kernel, timeout=600, kernel_name="python3", record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=40"],
        resources={"metadata": {"path": str(folder)}},
    )  # fmt: skip
    client.execute()
    notebook.cells = own
    return notebook


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as aside:
        for path in [p for p in NOTEBOOKS if not sys.argv[1:] or p.stem in sys.argv[1:]]:
            done = execute(path, Path(aside))
            done.metadata = {
                "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
                "language_info": {"name": "python"},
                "executed_source": source_hash(done),
            }
            nbformat.write(done, path)
            print(f"{path.name:32} {path.stat().st_size / 1000:.0f} kB")
