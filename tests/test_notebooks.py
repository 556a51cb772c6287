"""The notebooks run from the first cell to the last, and are stored without outputs."""

import pathlib

import pytest

NOTEBOOKS = sorted((pathlib.Path(__file__).resolve().parent.parent / "examples" / "notebooks").glob("*.ipynb"))
# What takes long, made short: the text in a notebook, and what the test runs in its place.
SHORTER = {
    "PEOPLE, PICTURES, STEPS = 60, 10, 300": "PEOPLE, PICTURES, STEPS = 6, 4, 5",
    "num_identities=40, first_identity=PEOPLE, num_pairs=400": "num_identities=20, first_identity=PEOPLE, num_pairs=40",
    "EPOCHS = 30": "EPOCHS = 2",
}


def read(path):
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat, part of the extra [test]")
    return nbformat.read(path, as_version=4)


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["add_a_margin_to_your_classifier", "train_on_your_own_folder"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, tmp_path):
    for module in ("ipykernel", "matplotlib", "sklearn"):
        pytest.importorskip(module, reason="needs the extras [test] and [plots]")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient, part of the extra [test]")
    notebook = read(path)
    for cell in notebook.cells:
        for text, short in SHORTER.items():
            cell.source = cell.source.replace(text, short)
    root = str(path.parent.parent.parent)
    notebook.cells[1].source = f"import sys\nsys.path.insert(0, {root!r})\n" + notebook.cells[1].source
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "EER" in printed
    assert "Warning" not in printed
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert any("image/png" in output["data"] for output in pictures), "the figure at a cell's end is shown"
