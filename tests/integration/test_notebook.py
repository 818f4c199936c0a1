"""A notebook shows what the library returns: tables and pictures, with no magic command before."""

import tempfile

import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from traitlets.config import Config

nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

SAMPLES = """import fedlas, torch
logits = 3 * torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
P = fedlas.Predictions(logits, logits.argmax(1).roll(1))"""


def execute(notebook, folder):
    """Run a notebook; its kernel listens at files, since ports may be taken, and their paths must be short."""
    with tempfile.TemporaryDirectory() as sockets:
        config = Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"})
        client = nbclient.NotebookClient(notebook, timeout=1500, startup_timeout=600, config=config)
        client.execute(cwd=str(folder))


@pytest.mark.system
def test_a_report_is_a_table_and_a_diagram_a_picture(tmp_path, monkeypatch):
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    panels = (
        "from fedlas.plots.theme import LIGHT, new_axes\nnew_axes(LIGHT, size=(4, 2), panels=2)"
    )
    card = "fedlas.card(P, fedlas.Predictions(-logits, P.target), 'temperature', replicates=0)"
    shown = ("fedlas.report(P, replicates=0)", "fedlas.plots.reliability_diagram(P)", panels, card)
    made = new_notebook(cells=[new_code_cell(text) for text in (SAMPLES, *shown)])
    execute(made, tmp_path)
    report, diagram, several, card = (cell.outputs[-1] for cell in made.cells[1:])
    assert "<table" in report.data["text/html"]
    assert "ECE" in report.data["text/html"]
    assert "ECE" in report.data["text/plain"]
    assert "What may be accepted" in card.data["text/html"]
    assert several.data["image/png"].startswith("iVBOR")
    assert diagram.data["image/png"].startswith("iVBOR")  # the signature of a PNG in base64


@pytest.mark.system
def test_no_progress_is_saved(tmp_path, monkeypatch):
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    always = "from fedlas._core import progress\nprogress._QUIET = -1.0"
    texts = (SAMPLES, always, "evaluation = fedlas.report(P, replicates=39)")
    made = new_notebook(cells=[new_code_cell(text) for text in texts])
    execute(made, tmp_path)
    assert [each.data for each in made.cells[-1].outputs] == [{"text/plain": ""}]


DRAW = "fedlas.plots.reliability_diagram(P)"


@pytest.mark.system
@pytest.mark.parametrize(
    "text",
    [
        f"{DRAW};",
        f"import matplotlib.pyplot as plt\n{DRAW}\nplt.show()",
        f"ax = {DRAW}",
        f"import matplotlib.pyplot as plt\nplt.figure(figsize=(5, 5))\n{DRAW}",
    ],
    ids=["semicolon", "show", "assigned", "figure"],
)
def test_a_diagram_is_shown_once_however_it_is_drawn(text, tmp_path, monkeypatch):
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    made = new_notebook(cells=[new_code_cell(part) for part in (SAMPLES, text)])
    execute(made, tmp_path)
    pictures = [
        output for output in made.cells[-1].outputs if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 1


@pytest.mark.system
def test_pyplot_saves_what_a_cell_drew_and_keeps_no_figure(tmp_path, monkeypatch):
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    texts = (
        SAMPLES,
        "import matplotlib.pyplot as plt",
        f"{DRAW}\nplt.savefig('drawn.png')",
        "plt.figure(figsize=(3.6, 4.6)).savefig('empty.png')",
        "print(plt.get_fignums())",
    )
    made = new_notebook(cells=[new_code_cell(text) for text in texts])
    execute(made, tmp_path)
    drawn, empty = (gray_levels(tmp_path / f"{name}.png") for name in ("drawn", "empty"))
    assert len(drawn) > len(empty) == 1
    assert made.cells[-1].outputs[0].text == "[]\n"


def gray_levels(path):
    """The distinct gray levels of a picture."""
    return set(np.asarray(Image.open(path).convert("L")).ravel().tolist())
