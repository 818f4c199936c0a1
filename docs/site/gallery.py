"""The gallery: scripts of ``examples/gallery`` become pages with their picture first, and notebooks that were run.

An example runs again when its script, the code of the library or a package that it stands on has changed.
"""

import ast
import hashlib
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
from docutils import nodes
from nbclient import NotebookClient
from sphinx.util.display import status_iterator
from sphinx_gallery.directives import imgsgnode
from sphinx_gallery.scrapers import figure_rst
from traitlets.config import Config

import fedlas
from fedlas.calibrators import CALIBRATORS
from fedlas.plots import LIGHT
from fedlas.present.page import to_themed_svg

_OWN_CALIBRATORS = {entry.name: entry for entry in CALIBRATORS.entries()}
_ORDER = (
    "churn", "clinical_risk", "several_labels", "image_to_onnx", "text_model", "language_model_logs", "segmentation",
    "month_of_drift", "own_loss", "own_calibrator",
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
        drawn = to_themed_svg(axes[0], f"{example} {panels}").replace("#000000", "var(--ink)")
        drawn = drawn.replace(
            "<style>svg{", "<style>svg{fill:var(--ink);", 1
        )  # what has no fill is black
        files[-1].write_text(drawn, encoding="utf-8")
    plt.close("all")
    return str(figure_rst(files, settings["src_dir"], f"Figure of: {example}"))


@cache
def library() -> str:
    """Return a digest of the library's code without docstrings, and of the packages that examples stand on."""
    digest = hashlib.sha256()
    for package in ("torch", "numpy", "matplotlib", "scikit-learn"):
        digest.update(version(package).encode())
    for path in sorted(Path(fedlas.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(
                node
            ):
                del node.body[0]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()


def forget_stale(app: Any) -> None:
    """Let sphinx-gallery run the examples again that an older library ran."""
    pages = Path(app.srcdir, "docs", "gallery")
    for path in pages.glob("*.py.md5"):
        key = path.with_name(path.name.removesuffix(".py.md5") + ".library")
        if not key.exists() or key.read_text(encoding="utf-8") != library():
            path.unlink()


def run_notebooks(app: Any) -> None:
    """Run the notebooks that a build made, one a core; ``-D notebooks=NAME*`` runs fewer."""
    pages = Path(app.srcdir, "docs", "gallery")
    notebooks = sorted(pages.glob(f"{app.config.notebooks}.ipynb"))
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # each waits for a process, its kernel
        shown = status_iterator(
            zip(notebooks, threads.map(_run_notebook, notebooks), strict=True),
            "running notebooks... ",
            length=len(notebooks),
            stringify_func=lambda done: done[0].name,
        )
        for _ in shown:
            pass
    for path in pages.glob("*.py.md5"):
        name = path.name.removesuffix(".py.md5")
        path.with_name(f"{name}.library").write_text(library(), encoding="utf-8")


def _run_notebook(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    if any(cell.get("outputs") for cell in notebook.cells):
        return
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
