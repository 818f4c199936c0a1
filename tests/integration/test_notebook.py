"""A notebook shows what the library returns: tables and pictures, with no magic command before."""

import tempfile

import pytest
from nbformat.v4 import new_code_cell, new_notebook
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
    always = "from fedlas._core import terminal\nterminal._QUIET = -1.0"
    texts = (SAMPLES, always, "evaluation = fedlas.report(P, replicates=39)")
    made = new_notebook(cells=[new_code_cell(text) for text in texts])
    execute(made, tmp_path)
    assert [each.data for each in made.cells[-1].outputs] == [{"text/plain": ""}]
