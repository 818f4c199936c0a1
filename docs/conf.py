"""The documentation site: Sphinx reads the repository, so a link between two files is one between two pages."""

import importlib
import re
import sys
import tomllib
from pathlib import Path
from types import FunctionType
from typing import Any

from sphinx.pycode import ModuleAnalyzer
from sphinx.util.display import status_iterator

import fedlas

sys.path.insert(0, str(Path(__file__).parent / "site"))
import figures
from command_line import command_line
from gallery import arrange, forget_stale, library, run_notebooks
from reference import name_examples, overview, readable, source_of

ROOT = Path(__file__).parents[1]
LINKS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
ICONS = {"Paper": "fa-solid fa-file-lines", "Repository": "fa-brands fa-github"}
REPOSITORY = LINKS.get("Repository")  # the one place where its address stands is pyproject.toml

project = "fedlas"
release = version = fedlas.__version__
html_title = f"fedlas {release}"
root_doc = "docs/index"
include_patterns = ["docs/**.md", "docs/gallery/**.rst", "results/**.md", "[A-Z]*.md"]
exclude_patterns = [
    "README.md",
    "docs/gallery/sg_*",
    "docs/gallery/GALLERY_HEADER.rst",
]  # its first screen is the first page
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    *(["sphinx.ext.linkcode"] if REPOSITORY else []),
]

NAVIGATION = {
    "docs/index": (
        "Repair <any-model>",
        "Measure <reliability-diagram>",
        "Train <which-loss>",
        "gallery/index",
        "/results/README",
        "reference/index",
        "troubleshooting",
        "Develop </CONTRIBUTING>",
        "cite",
    ),
    "docs/any-model": ("calibrators", "tables", "every-night", "language-models", "production"),
    "docs/reliability-diagram": ("predictions", "binary", "metrics", "uncertainty"),
    "docs/which-loss": (
        "losses",
        "method",
        "integrations",
        "recipes",
        "scale",
        "tuning",
        "trackers",
        "own-loss",
        "bench-paper",
    ),
    "docs/binary": ("decision", "clinical-study", "prevalence"),
    "docs/metrics": ("which-number", "glossary"),
    "docs/predictions": ("predict", "groups", "weights"),
    "docs/uncertainty": ("refuse",),
    "docs/tables": ("table-files", "labels"),
    "docs/every-night": ("database",),
    "docs/production": ("gate", "monitor", "export"),
    "docs/losses": ("all-losses",),
    "docs/method": ("departures", "references"),
    "docs/integrations": ("fine-tuning", "tasks", "streaming", "sklearn", "hub"),
    "docs/recipes": ("own-data", "data-sets"),
    "docs/bench-paper": ("bench-python", "compare-seeds"),
    "docs/scale": ("several-gpus", "precision"),
    "docs/own-loss": ("own-calibrator",),
    "results/README": (
        "replication",
        "LEADERBOARD",
        "calibrators",
        "further",
    ),
    "results/further": (
        "fine-grained/README",
        "many/README",
        "labels/README",
        "labels/PROTOCOL",
        "wild/README",
        "arena/README",
        "arena/PROTOCOL",
        "cifar10-45000/README",
        "cifar100-45000/README",
        "cifar10/README",
        "coverage",
        "digits/README",
        "fashion-mnist/README",
        "fashion-mnist/gate",
        "fashion-mnist/indicator",
        "fine-grained/PROTOCOL",
        "fine-grained/PROTOCOL-2",
        "fine-grained/tables",
        "glyphs/README",
        "label-shift",
        "methods/README",
        "methods/settings",
        "monitor",
        "ood-norms",
        "open-set",
        "other-programs",
        "paper",
        "posteriors",
        "prediction-sets",
        "published-network/README",
        "scaling",
        "side-information/README",
        "side-information/CHOICES",
        "side-information/PROTOCOL",
        "many/PROTOCOL",
        "auto/README",
        "auto/protocol",
        "auto/design",
        "speed",
        "wild/PROTOCOL",
        "wordnet/README",
    ),
    "docs/reference/index": (
        "command-line",
        "fedlas",
        "calibrated",
        "errors",
        "checks",
        "losses",
        "metrics",
        "stats",
        "binary",
        "calibrators",
        "plots",
        "features",
        "diagnose",
        "zoo",
        "data",
        "models",
        "integrations",
    ),
    "CONTRIBUTING": ("docs/architecture",),
    "docs/architecture": ("/CHANGELOG", "/RELEASING", "/SECURITY", "/CODE_OF_CONDUCT"),
}
"""Pages below a page; the first are the bar at the top, those below them the margin at the left."""

sphinx_gallery_conf = {
    "examples_dirs": "examples/gallery",
    "gallery_dirs": "docs/gallery",
    "filename_pattern": r"\.py$",
    "image_scrapers": ("gallery.scrape",),
    "reset_modules": ("matplotlib", "gallery.begin"),
    "parallel": True,
    "within_subsection_order": "gallery.Order",
    "download_all_examples": False,
    "show_signature": False,
    "capture_repr": (),
    "write_computation_times": False,
    "min_reported_time": 1e9,
}

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

# Reference: what a package exports, in its own order, types and defaults in the signature.
autodoc_default_options = {
    "members": True,
    "no-value": True,
    "exclude-members": "extra_repr, set_fit_request, set_partial_fit_request, set_predict_proba_request, "
    "set_score_request",
}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False
napoleon_numpy_docstring = False
napoleon_custom_sections = ["State", "Source"]
napoleon_use_ivar = True
napoleon_use_rtype = False
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_favicon = "site/favicon.svg"
html_static_path = ["site/static"]
html_css_files = ["style.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_extra_path = ["site/index.html"]  # leads to the first page
html_context = {"default_mode": "auto"}
html_copy_source = False
html_use_index = html_domain_indices = False  # the search finds names
html_theme_options = {
    "logo": {"text": html_title},
    "header_links_before_dropdown": 9,
    "navbar_persistent": ["search-button"],  # on a phone; else the field in the margin
    "navbar_end": ["theme-switcher", "navbar-icon-links"],
    "icon_links": [
        {"name": name, "url": url, "icon": ICONS.get(name, "fa-solid fa-link")}
        for name, url in LINKS.items()
    ],
    "navigation_depth": 1,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
}
html_sidebars = {
    "docs/*": ["search-button-field", "sidebar-nav-bs"],
    "docs/gallery/*": ["search-button-field"],
    "results/**": ["search-button-field", "sidebar-nav-bs"],
    "[A-Z]*": ["search-button-field"],
    "docs/reference/*": ["search-button-field"],
}
EXAMPLE = r"""<details class="example" id="\3"><summary>\1 (examples/\3.py)</summary>

:::{literalinclude} \2
:::

</details>"""


def draw_figures(app: Any) -> None:
    """Draw the figures of another library or other runs anew; they are never committed."""
    folder = Path(app.srcdir, "docs", "figures")
    folder.mkdir(exist_ok=True)
    key = folder / "library"
    inputs = [library(), Path(figures.__file__).read_text(encoding="utf-8")]
    inputs += [f"{path.name} {path.stat().st_mtime_ns}" for path in sorted(figures.RUNS.iterdir())]
    if key.exists() and key.read_text(encoding="utf-8") == "\n".join(inputs):
        return
    names = list(figures.FIGURES)
    for name in status_iterator(names, "drawing figures... ", length=len(names)):
        (folder / f"{name}.svg").write_text(figures.draw(name), encoding="utf-8")
    key.write_text("\n".join(inputs), encoding="utf-8")


def generated(_app: Any, _env: Any, *_pages: Any) -> list[str]:
    """Return the page that is made of code alone, which no file shows to be outdated."""
    return ["docs/reference/command-line"]


def remove_stale(app: Any, error: Exception | None) -> None:
    """Remove pages of an earlier build that this one does not have."""
    if error is not None:
        return
    pages = {Path(app.outdir, f"{name}.html") for name in app.env.found_docs}
    pages |= {Path(app.outdir, name) for name in ("index.html", "search.html")}
    for path in Path(app.outdir).rglob("*.html"):
        if path not in pages and "_static" not in path.parts:
            path.unlink()


def complete(_app: Any, page: str, source: list[str]) -> None:
    """Give a page the pages below it, captions of its files, and the command line."""
    text = source[0].replace("<!-- the command line, from its parsers -->", command_line())
    text = re.sub(r"^\[(.+)\]\((\.\./examples/(\w+)\.py)\)$", EXAMPLE, text, flags=re.M)
    text = re.sub(
        r'^```(\w+) title="(.+)"$', r"```{code-block} \1\n:caption: \2\n", text, flags=re.M
    )
    for package in re.findall(r"automodule:: (\S+)", text):
        describe_data(package)
    directive = r"^```{eval-rst}\n\.\. automodule:: (\S+)"
    text = re.sub(directive, lambda found: f"{overview(found[1])}\n{found[0]}", text, flags=re.M)
    if page in NAVIGATION:
        text += "\n".join(["\n```{toctree}", ":hidden:", "", *NAVIGATION[page], "```", ""])
    source[0] = text


def describe_data(package: str) -> None:
    """Give exported values, such as registries, the docstring of their definition in another module."""
    room = importlib.import_module(package)
    comments = ModuleAnalyzer.for_module(package).find_attr_docs()
    homes = [home for name, home in sys.modules.items() if name.startswith("fedlas.")]
    for name in getattr(room, "__all__", ()):
        value = getattr(room, name)
        if isinstance(value, type | FunctionType):
            continue
        for home in homes:
            if vars(home).get(name) is value:
                documented = ModuleAnalyzer.for_module(home.__name__).find_attr_docs()
                comments |= {key: lines for key, lines in documented.items() if key == ("", name)}


def linkcode_resolve(_domain: str, info: dict[str, str]) -> str | None:
    """Link an object to its lines in the repository."""
    return source_of(info, str(REPOSITORY))


def setup(app: Any) -> None:
    """Connect the steps that are this site's own."""
    app.add_config_value("notebooks", "*", "")
    app.add_config_value("navigation", NAVIGATION, "env")
    app.connect("builder-inited", draw_figures)
    app.connect("builder-inited", forget_stale, priority=400)
    app.connect("builder-inited", run_notebooks, priority=900)
    app.connect("env-get-outdated", generated)
    app.connect("doctree-read", arrange)
    app.connect("source-read", complete)
    app.connect("autodoc-process-signature", readable)
    app.connect("autodoc-process-docstring", name_examples, priority=900)  # after napoleon
    app.connect("build-finished", remove_stale)
