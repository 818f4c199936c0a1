"""The gallery: scripts of ``examples/gallery`` become pages with their picture first, and notebooks that were run."""

import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
from docutils import nodes
from nbclient import NotebookClient
from sphinx_gallery.directives import imgsgnode
from sphinx_gallery.scrapers import figure_rst
from traitlets.config import Config

from fedlas.calibrators import CALIBRATORS
from fedlas.plots import LIGHT
from fedlas.present.page import themed_svg

_OWN_CALIBRATORS = dict(CALIBRATORS._entries)
_ORDER = (
    "churn", "clinical_risk", "image_to_onnx", "text_model", "language_model_logs", "segmentation", "month_of_drift",
    "own_loss", "own_calibrator",
)  # fmt: skip


class Order:
    """Sorts the examples as a reader meets the tasks: repair, then watch, then extend."""

    def __init__(self, _folder: str) -> None: ...

    def __call__(self, file: str) -> int:
        """Return the place of a script."""
        return _ORDER.index(Path(file).stem)


def begin(_settings: Any, _script: str) -> None:
    """Undo what the script before changed, and draw in the palette that :func:`scrape` turns into the page's."""
    CALIBRATORS._entries = dict(_OWN_CALIBRATORS)
    names = "text.color axes.edgecolor axes.labelcolor axes.titlecolor xtick.color ytick.color"
    plt.rcParams.update(dict.fromkeys(names.split(), LIGHT.ink))
    plt.rcParams["axes.prop_cycle"] = plt.cycler(color=LIGHT.lines)


def scrape(_block: Any, variables: dict[str, Any], settings: dict[str, Any]) -> str:
    """Save the open figures, and one that is the last value, as files that follow the reader's theme."""
    files = []
    script = Path(variables["src_file"]).read_text(encoding="utf-8")
    example = script.strip('"\n').split("\n", 1)[0]
    figures = [plt.figure(number) for number in plt.get_fignums()]
    last = getattr(variables["example_globals"].get("___"), "figure", None)
    figures += [last] if last and last not in figures else []
    for drawing, path in zip(figures, variables["image_path_iterator"], strict=False):
        axes = drawing.axes
        panels = ", ".join(ax.get_title() or ax.get_ylabel() for ax in axes)
        files.append(Path(path).with_suffix(".svg"))
        drawn = themed_svg(axes[0], f"{example} {panels}").replace("#000000", "var(--ink)")
        drawn = drawn.replace(
            "<style>svg{", "<style>svg{fill:var(--ink);", 1
        )  # what has no fill is black
        files[-1].write_text(drawn, encoding="utf-8")
    plt.close("all")
    return str(figure_rst(files, settings["src_dir"], f"Figure of: {example}"))


def run_notebooks(app: Any) -> None:
    """Run the notebooks that a build made; ``-D notebooks=NAME*`` runs fewer."""
    pages = Path(app.srcdir, "docs", "gallery")
    for path in sorted(pages.glob(f"{app.config.notebooks}.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if any(cell.get("outputs") for cell in notebook.cells):
            continue
        with tempfile.TemporaryDirectory() as folder:
            sockets = Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel"})
            NotebookClient(notebook, startup_timeout=600, config=sockets).execute(cwd=folder)
        nbformat.write(notebook, path)


def arrange(app: Any, tree: nodes.document) -> None:
    """Put the picture of an example below its title; name the pictures of the list."""
    if not app.env.docname.startswith("docs/gallery/"):
        return
    for picture in list(tree.findall(nodes.image)):
        picture["alt"] = picture["alt"] or f"Thumbnail {Path(picture['uri']).stem}"
    top = next(iter(tree.findall(nodes.section)))
    for place, picture in enumerate(list(tree.findall(imgsgnode)), start=1):
        picture.parent.remove(picture)
        top.insert(place, picture)
