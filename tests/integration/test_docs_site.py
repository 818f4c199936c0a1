"""The documentation site: it builds without a warning, needs nothing from elsewhere, and every link leads somewhere."""

import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from fedlas.cli.main import _parsers
from markdown_blocks import DRAWINGS, PAGES, ROOT, blocks_of

pytestmark = pytest.mark.system

ROOMS = (
    "checks errors losses metrics stats calibrators plots features diagnose zoo.ood zoo.uncertainty"
)
MODULES = ["fedlas", *(f"fedlas.{room}" for room in (*ROOMS.split(), "lab.data", "lab.models"))]
TOOLS = ROOT / "docs" / "site"
FETCHED = {("link", "href"), ("use", "href"), ("object", "data"), ("img", "srcset")}
FETCHED |= {
    (tag, "src") for tag in ("script", "img", "source", "iframe", "embed", "video", "audio")
}


class Page(HTMLParser):
    """Links, ids, images and what the browser fetches of one page."""

    def __init__(self, path):
        super().__init__()
        self.path, self.ids, self.links, self.fetched, self.images, self.blocks = (
            path,
            set(),
            [],
            [],
            [],
            0,
        )
        self.text = path.read_text(encoding="utf-8")
        self._examples = 0
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if given.get("id"):
            self.ids.add(given["id"])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "img":
            self.images.append(given)
        if tag == "details" and "example" in (given.get("class") or ""):
            self._examples += 1
        if (
            tag == "div"
            and "highlight" in (given.get("class") or "").split()
            and not self._examples
        ):
            self.blocks += 1
        for name, value in attrs:
            if (
                (tag, name) in FETCHED
                and value
                and given.get("rel") not in ("canonical", "prev", "next")
            ):
                self.fetched.append(value)

    def handle_endtag(self, tag):
        if tag == "details" and self._examples:
            self._examples -= 1


def needs_mkdocs():
    if "FEDLAS_CI" not in os.environ:
        pytest.importorskip("material")
        pytest.importorskip("mkdocstrings")


@pytest.fixture(scope="module")
def site(docs_site):
    return {
        path.relative_to(docs_site).as_posix(): Page(path)
        for path in sorted(docs_site.rglob("*.html"))
    }


@pytest.fixture(scope="module")
def tools():
    """The modules that MkDocs' hooks are made of."""
    needs_mkdocs()
    sys.path.insert(0, str(TOOLS))
    yield {name: importlib.import_module(name) for name in ("links", "figures")}
    sys.path.remove(str(TOOLS))


def test_every_page_is_there(site, tools):
    expected = [
        *(page.removeprefix("docs/") for page in PAGES),
        *tools["links"].PAGES.values(),
        "404.md",
    ]
    assert {"results.md", "results/fashion-mnist/gate.md"} <= set(expected)
    assert {page.replace(".md", ".html") for page in expected} == set(site)


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
        if name == "404.html":  # its links are from the root, for a server
            continue
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
        if page.startswith("docs/reference/"):
            continue
        shown = site[page.removeprefix("docs/").replace(".md", ".html")].blocks
        drawn = sum(place[0] == page for place in DRAWINGS)
        assert shown == len(blocks_of(page)), (
            f"{page}: {shown} on the site, {len(blocks_of(page))} known ({drawn} drawn)"
        )


def test_figures_are_there_for_light_and_for_dark_and_are_described(site):
    seen = set()
    for name, page in site.items():
        for image in page.images:
            assert len(image.get("alt") or "") > 20, f"{name}: {image}"
            # those of results are one file, whose colors follow the theme
            if "figures/" in image["src"]:
                seen.add(image["src"].split("/")[-1])
    figures = {source.split("#")[0].rsplit("-", 1)[0] for source in seen}
    assert seen == {
        f"{figure}-{theme}.svg#only-{theme}" for figure in figures for theme in ("light", "dark")
    }
    assert len(figures) >= 10
    drawn = {path.name for path in (site["index.html"].path.parent / "figures").iterdir()}
    assert drawn == {source.split("#")[0] for source in seen}  # none is drawn and not shown


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_has_every_public_name(site, module):
    page = site[f"reference/{'zoo' if '.zoo.' in module else module.split('.')[-1]}.html"]
    names = [name for name in importlib.import_module(module).__all__ if not name.startswith("__")]
    inner = {name for name in names if f"{module}.{name}" in MODULES}  # each has a page of its own
    assert [
        name for name in names if f"{module}.{name}" not in page.ids and name not in inner
    ] == []


def test_the_reference_has_every_integration(site):
    ids = site["reference/integrations.html"].ids
    for path in (ROOT / "src" / "fedlas" / "integrations").glob("[a-z]*.py"):
        assert f"fedlasintegrations{path.stem}" in ids, path.stem  # its heading
        public = re.findall(
            r"^(?:class|def) ([A-Za-z]\w*)", path.read_text(encoding="utf-8"), flags=re.M
        )
        assert [n for n in public if f"fedlas.integrations.{path.stem}.{n}" not in ids] == []


def test_no_markup_of_docstrings_is_left(site):
    for name, page in site.items():
        if name.startswith("reference/"):
            body = re.sub(r"<(pre|code)\b.*?</\1>", "", page.text, flags=re.S)
            assert not re.search(r":(class|func|meth|data|mod|attr):|``|&gt;&gt;&gt;", body), name


def test_the_command_line_is_documented(site):
    text = site["reference/command-line.html"].text
    _, verbs = _parsers()
    for name, verb in verbs.items():
        assert f'id="{name}"' in text
        for option in set(verb.options) - {"--help"}:
            assert re.search(rf"<dt><code>(-\w, )?{option}\b", text), f"{name} {option}"


def test_the_source_of_every_example_is_shown(site):
    page = site["integrations.html"]
    for path in (ROOT / "examples").glob("*.py"):
        assert path.stem in page.ids


def test_figures_are_the_same_each_time_and_differ_by_theme(tools):
    figures = tools["figures"]
    light = figures.draw("strength", "light")
    assert light == figures.draw("strength", "light") != figures.draw("strength", "dark")
    assert "<date>" not in light.lower()
    # no background
    assert "#ffffff" not in light.lower().split("</metadata>")[-1].split("axes_1")[0]


def test_a_figure_without_its_logs_says_so(tools, monkeypatch, tmp_path):
    monkeypatch.setattr(tools["figures"], "RUNS", tmp_path)
    with pytest.raises(FileNotFoundError, match="logs of fedlas"):
        tools["figures"].draw("flips", "light")


def test_links_of_the_repository_work_on_the_site(tools):
    change = tools["links"].for_site
    read = {
        "[a](../CHANGELOG.md)": "[a](changelog.md)",
        "[a](../results/README.md#speed)": "[a](results.md#speed)",
        "[a](../results/fashion-mnist/README.md)": "[a](results/fashion-mnist/overview.md)",
        "see [a](../examples/timm_task.py)": "see [a](integrations.md#timm_task)",
        "[a](methods.md#losses)": "[a](methods.md#losses)",
        "[runs](../results/fashion-mnist)": "runs (`results/fashion-mnist` in the repository)",
        "[`results/fashion-mnist`](../results/fashion-mnist)": "`results/fashion-mnist`",
        "[a](../nowhere.md)": "[a](../nowhere.md)",  # a strict build fails on it
        "[a](https://arxiv.org/abs/1)": "[a](https://arxiv.org/abs/1)",
        "[a](#here)": "[a](#here)",
        "![a](figures/x.svg)": "![a](figures/x.svg)",
        "```\n[a](../CHANGELOG.md)\n```": "```\n[a](../CHANGELOG.md)\n```",
    }
    for text, expected in read.items():
        assert change(text, "docs/scale.md", "scale.md") == expected
    assert (
        change("[a](../methods.md)", "docs/reference/losses.md", "reference/losses.md")
        == "[a](../methods.md)"
    )
    assert change("[a](docs/scale.md)", "README.md", "index.md") == "[a](scale.md)"
    shown = change("[Whole](../examples/timm_task.py)", "docs/integrations.md", "integrations.md")
    assert 'id="timm_task"' in shown
    assert "CriterionTask" in shown


def test_a_wrong_link_fails_the_build(tmp_path):
    needs_mkdocs()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(
        "# A\n\n[b](nowhere.md) [c](#nothing)\n", encoding="utf-8"
    )
    shared = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    own = re.sub(r"^(nav|hooks|watch|plugins|extra_css):\n(?:(?: .*)?\n)*", "", shared, flags=re.M)
    (tmp_path / "mkdocs.yml").write_text(own, encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr
    assert "#nothing" in done.stderr


def test_the_make_target_builds_strictly():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^docs:.*\n\t.*mkdocs build --strict", text, flags=re.M)
    assert "/site/" in (ROOT / ".gitignore").read_text().split()
    assert Path(ROOT / "mkdocs.yml").is_file()
