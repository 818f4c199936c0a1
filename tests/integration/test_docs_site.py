"""The documentation site: it builds without a warning, needs nothing from elsewhere, and every link leads somewhere."""

import ast
import importlib
import importlib.util
import json
import posixpath
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from fedlas.cli import parsers
from markdown_blocks import PAGES, RESULTS, ROOT, blocks_of

pytestmark = pytest.mark.system

ROOMS = (
    "checks errors losses metrics stats calibrators plots features diagnose zoo.ood zoo.uncertainty"
)
MODULES = ["fedlas", *(f"fedlas.{room}" for room in (*ROOMS.split(), "lab.data", "lab.models"))]
ELSEWHERE = {
    ("fedlas.calibrators", "CalibrationWarning"),  # fedlas.errors
    ("fedlas.features", "FeatureTap"),  # fedlas
}
"""Names that a page leaves to another, which documents the same object."""
STRICT = ["-m", "sphinx", "-W", "--keep-going", "-q"]
REFRESH = re.compile(r'http-equiv="refresh" content="0; url=([^"]+)"')
FETCHED = {("link", "href"), ("use", "href"), ("object", "data"), ("img", "srcset")}
FETCHED |= {
    (tag, "src") for tag in ("script", "img", "source", "iframe", "embed", "video", "audio")
}


class Page(HTMLParser):
    """Links, ids, images and what the browser fetches of one page."""

    def __init__(self, path):
        super().__init__()
        self.path, self.ids, self.links, self.fetched, self.images = path, set(), [], [], []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if given.get("id"):
            self.ids.add(given["id"])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "img":
            self.images.append(given)
        elsewhere = given.get("rel") in ("canonical", "prev", "next")
        self.fetched += [
            value for name, value in attrs if (tag, name) in FETCHED and value and not elsewhere
        ]

    @property
    def article(self):
        return self.text.split("<article", 1)[1].split("</article>", 1)[0]


@pytest.fixture(scope="module")
def site(docs_site):
    return {
        path.relative_to(docs_site).as_posix(): Page(path)
        for path in sorted(docs_site.rglob("*.html"))
        if "_static" not in path.parts  # a template of the theme
    }


def loaded(name):
    """A module of the site's own steps."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def figures():
    """The module that draws them."""
    return loaded("figures")


def test_every_page_is_there(site):
    expected = {page.replace(".md", ".html") for page in [*PAGES, *RESULTS]}
    assert {"docs/index.html", "results/fashion-mnist/gate.html", "CHANGELOG.html"} <= set(site)
    assert expected <= set(site)


def test_the_first_page_leads_to_every_other_in_three_clicks(site):
    """Its own crawl, from the address that a server or a folder opens."""
    near, seen = {"index.html"}, set()
    for _ in range(5):  # the address, the first page, three clicks
        seen |= near
        near = {
            posixpath.normpath(posixpath.join(posixpath.dirname(name), urlsplit(link).path))
            for name in near
            for link in [*site[name].links, *REFRESH.findall(site[name].text)]
            if urlsplit(link).path and not urlsplit(link).scheme
        } & (set(site) - seen)
    assert set(site) - seen <= {"search.html"}


def test_the_navigation_has_32_pages_at_most(site):
    listed = set()
    for name, page in site.items():
        menus = page.text.split("<main", 1)[0]  # bar and left margin
        links = re.findall(r'class="(?:reference|nav-link)[^"]*" href="([^"#]+)"', menus)
        folder = posixpath.dirname(name)
        listed |= {posixpath.normpath(posixpath.join(folder, link)) for link in links}
    assert 20 <= len(listed) <= 32, sorted(listed)


@pytest.mark.parametrize(
    ("typed", "page"),
    [
        ("csv", "docs/tables"),
        ("cite", "docs/cite"),
        ("ignore_index", "docs/predict"),
        ("gate", "docs/gate"),
    ],
)
def test_the_search_finds_what_people_type(docs_site, typed, page):
    """In a title or a heading, which the search shows before words of the text."""
    text = (docs_site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    places = index["titleterms"].get(typed, [])
    places = places if isinstance(places, list) else [places]
    assert page in [index["docnames"][place] for place in places]


def test_the_first_page_leads_to_five_tasks_before_its_picture_and_to_the_citation(site):
    page = site["docs/index.html"]
    above = page.article.split("<img", 1)[0]
    cards = re.findall(r'href="([\w-]+)\.html"', above)
    assert cards[:5] == ["tables", "binary", "language-models", "any-model", "which-loss"]
    bar = page.text.split("<main", 1)[0]
    assert 'href="cite.html"' in bar
    assert "inproceedings" in page.article
    icons = re.findall(r'<a [^>]*class="nav-link[^"]*pst-navbar-icon[^>]*>', bar)
    assert icons
    assert all(re.search(r'title="\w+"', icon) for icon in icons)


def test_nothing_is_fetched_from_elsewhere(site):
    for name, page in site.items():
        away = [url for url in page.fetched if urlsplit(url).scheme or url.startswith("//")]
        assert away == [], name
    folder = site["index.html"].path.parent
    for style in folder.rglob("*.css"):
        found = re.findall(
            r"(?:url\(\s*['\"]?|@import\s+['\"])([^'\")]+)", style.read_text(encoding="utf-8")
        )
        assert [url for url in found if re.match(r"(https?:)?//", url)] == [], style


def test_every_link_and_file_leads_somewhere(site):
    folder = site["index.html"].path.parent
    by_path = {page.path.resolve(): page for page in site.values()}
    checked = 0
    for name, page in site.items():
        for url in page.links + page.fetched:
            parts = urlsplit(url)
            if parts.scheme:
                continue
            path = (
                (page.path.parent / unquote(parts.path)).resolve()
                if parts.path
                else page.path.resolve()
            )
            assert path.is_file(), f"{name} -> {url}"
            assert path.is_relative_to(folder.resolve()), f"{name} -> {url}"
            if parts.fragment and path in by_path and not parts.fragment.startswith("__"):
                assert unquote(parts.fragment) in by_path[path].ids, f"{name} -> {url}"
            checked += 1
    assert checked > 1000


def test_every_block_of_a_page_is_one_that_the_tests_know(site):
    """What looks like code on the site came from a fence that ``test_docs_blocks`` reads."""
    for page in PAGES:
        # The first page and the one on citing include parts of the README, whose blocks are known there.
        if page.startswith("docs/reference/") or page in ("docs/index.md", "docs/cite.md"):
            continue
        article = re.sub(
            r'<details class="example".*?</details>', "", site[page.replace(".md", ".html")].article, flags=re.S
        )  # fmt: skip
        shown = article.count('<div class="highlight">')
        assert shown == len(blocks_of(page)), f"{page}: {shown} on the site"


def test_figures_are_described_and_each_is_shown(site):
    seen = set()
    for name, page in site.items():
        for image in page.images:
            assert len(image.get("alt") or "") > 20, f"{name}: {image}"
            seen.add(image["src"].split("/")[-1])
    drawn = {path.name for path in (ROOT / "docs" / "figures").glob("*.svg")}
    assert drawn <= seen
    assert len(drawn) >= 10


def test_an_example_shows_its_picture_first_and_can_be_taken_along(site):
    for path in (ROOT / "examples" / "gallery").glob("*.py"):
        article = site[f"docs/gallery/{path.stem}.html"].article
        assert article.index("<h1") < article.index("<img") < article.index("<pre")
        assert {f"{path.stem}.py", f"{path.stem}.ipynb"} <= {
            link.split("/")[-1] for link in site[f"docs/gallery/{path.stem}.html"].links
        }
    cells = nbformat.read(ROOT / "docs" / "gallery" / "month_of_drift.ipynb", as_version=4).cells
    kinds = [
        kind for cell in cells for out in cell.get("outputs", ()) for kind in out.get("data", ())
    ]
    assert "image/png" in kinds


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_has_every_public_name(site, module):
    page = site[f"docs/reference/{'zoo' if '.zoo.' in module else module.split('.')[-1]}.html"]
    names = [name for name in importlib.import_module(module).__all__ if not name.startswith("__")]
    names = [name for name in names if (module, name) not in ELSEWHERE]
    inner = {name for name in names if f"{module}.{name}" in MODULES}  # each has a page of its own
    assert [
        name for name in names if f"{module}.{name}" not in page.ids and name not in inner
    ] == []


def test_everything_in_the_reference_has_an_example(site):
    """Its own, or that of a function that returns it, to which a line leads."""
    reference = loaded("reference")
    for name, value in reference.documented().items():
        assert ">>>" in value.__doc__ or list(reference.shown_by(value)), name
    assert re.search(
        r"For an example see .*#fedlas.stats.noise_floor", site["docs/reference/stats.html"].text
    )


def test_the_reference_has_every_integration(site):
    ids = site["docs/reference/integrations.html"].ids
    for path in (ROOT / "src" / "fedlas" / "integrations").glob("[a-z]*.py"):
        assert f"module-fedlas.integrations.{path.stem}" in ids, path.stem
        (public,) = re.findall(r"^__all__ = (\[.*?\])$", path.read_text("utf-8"), re.M | re.S)
        assert [
            n for n in ast.literal_eval(public) if f"fedlas.integrations.{path.stem}.{n}" not in ids
        ] == []


def test_no_markup_of_docstrings_is_left(site):
    for name, page in site.items():
        if name.startswith("docs/reference/"):
            body = re.sub(r"<(pre|code)\b.*?</\1>", "", page.article, flags=re.S)
            assert not re.search(r":(class|func|meth|data|mod|attr):|``|&gt;&gt;&gt;", body), name


def test_the_command_line_is_documented(site):
    text = site["docs/reference/command-line.html"].text
    _, verbs = parsers()
    for name, verb in verbs.items():
        assert 'id="' + name.replace(" ", "-") + '"' in text
        for option in set(verb.options) - {"--help"}:
            assert re.search(rf"<dt><code>(-\w, )?{option}\b", text), f"{name} {option}"


def test_the_source_of_every_example_is_shown(site):
    shown = site["docs/integrations.html"].ids | site["docs/streaming.html"].ids
    for path in (ROOT / "examples").glob("*.py"):
        assert path.stem in shown


def test_figures_are_the_same_each_time_and_follow_the_theme(figures):
    drawn = figures.draw("strength")
    assert drawn == figures.draw("strength")
    assert "prefers-color-scheme:dark" in drawn
    assert "<date>" not in drawn.lower()


def test_a_figure_without_its_logs_says_so(figures, monkeypatch, tmp_path):
    monkeypatch.setattr(figures, "RUNS", tmp_path)
    with pytest.raises(FileNotFoundError, match="logs of fedlas"):
        figures.draw("flips")


def test_a_wrong_link_fails_the_build(docs_site, tmp_path):
    (tmp_path / "index.md").write_text("# A\n\n[b](nowhere.md) [c](#nothing)\n", encoding="utf-8")
    settings = "extensions = ['myst_parser']\nmyst_heading_anchors = 4\n"
    (tmp_path / "conf.py").write_text(settings, encoding="utf-8")
    command = [sys.executable, *STRICT, str(tmp_path), str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr
    assert "#nothing" in done.stderr or "'nothing'" in done.stderr


def test_the_make_target_builds_strictly():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^docs:.*\n\t.*{' '.join(STRICT[:-1])}", text, flags=re.M)
    assert {"/site/", "/docs/figures/"} <= set((ROOT / ".gitignore").read_text().split())
