"""The files that people expect around a project: each parses, and what it says agrees with the code."""

import ast
import re
import runpy
import tomllib
from pathlib import Path

import pytest
import yaml

import fedlas

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
FORMS = [
    path for path in sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")) if path.name != "config.yml"
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAME_TARGETS = [
    ".github/workflows/checks.yml",
    ".github/workflows/release.yml",
    ".github/pull_request_template.md",
    "CONTRIBUTING.md",
    "RELEASING.md",
    "README.md",
    ".ci/run",
]


def parsed(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_citation_names_software_and_paper():
    citation = parsed("CITATION.cff")
    # what the format requires
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == fedlas.__version__
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [
        author["name"] for author in PROJECT["authors"]
    ]
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert paper["url"] in PROJECT["urls"].values()
    assert paper["url"] in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_project_links_are_real_addresses():
    assert PROJECT["urls"]
    for address in PROJECT["urls"].values():
        assert address.startswith("https://")
        assert not re.search(r"example\.|your|owner|placeholder", address, flags=re.IGNORECASE)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_has_what_github_requires(path):
    form = parsed(path)
    assert {"name", "description", "body"} <= set(form)
    asked = [field for field in form["body"] if field["type"] != "markdown"]
    assert any(field.get("validations", {}).get("required") for field in asked)
    assert all(field["attributes"]["label"] for field in asked)
    assert len({field["id"] for field in asked}) == len(asked)


def test_there_is_a_form_for_bugs_and_one_for_methods():
    assert {path.stem for path in FORMS} == {"bug", "method"}
    assert {"paper", "formula"} <= {
        field.get("id") for field in parsed(GITHUB / "ISSUE_TEMPLATE/method.yml")["body"]
    }
    assert isinstance(parsed(GITHUB / "ISSUE_TEMPLATE/config.yml")["blank_issues_enabled"], bool)


def test_the_workflow_runs_what_the_package_supports():
    job = parsed(".github/workflows/checks.yml")["jobs"]["checks"]
    versions = job["strategy"]["matrix"]["python"]
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert [f"Programming Language :: Python :: {version}" for version in versions] == [
        line for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)
    ]
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert [run.removeprefix("make ") for run in runs if run.startswith("make ")] == [
        "lint", "types", "test", "test-system", "coverage", "demo",
    ]  # fmt: skip


def test_only_the_publishing_job_may_publish():
    workflow = parsed(".github/workflows/release.yml")
    jobs = workflow["jobs"]
    uploads = [
        name
        for name, job in jobs.items()
        if any("pypi-publish" in step.get("uses", "") for step in job["steps"])
    ]
    assert uploads == ["publish"]
    assert workflow["permissions"] == {"contents": "read"}
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["environment"] == "pypi"
    assert jobs["publish"]["if"] == "github.event_name == 'push'"  # a dry run publishes nothing
    assert not any("run" in step for step in jobs["publish"]["steps"])  # no code of ours runs there


def test_pages_install_from_where_messages_say():
    extras = (ROOT / "src" / "fedlas" / "_core" / "extras.py").read_text("utf-8")
    (source_of_messages,) = re.findall(r'^INSTALL_SOURCE = "(.+)"', extras, re.MULTILINE)
    sources = {
        f"{page.relative_to(ROOT)}: {source}"
        for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
        for source in re.findall(r"""pip install ['"]?([^\s'"`]*)\[""", page.read_text("utf-8"))
        if source not in (source_of_messages, "$FEDLAS")
    }
    assert not sources


@pytest.mark.parametrize("page", NAME_TARGETS)
def test_every_make_target_that_a_file_names_exists(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, flags=re.MULTILINE))
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`|run: )make ([a-z-]+)", text, flags=re.MULTILINE))
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", ["SECURITY.md", "CODE_OF_CONDUCT.md", "RELEASING.md"])
def test_local_links_lead_somewhere(page):
    for target in re.findall(
        r"\]\((?!https?:|#)([^)#]+)", (ROOT / page).read_text(encoding="utf-8")
    ):
        assert (ROOT / target).exists(), f"{page} links to {target}"


def test_every_rule_of_security_is_held_by_tests_that_exist():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = r"`(tests/[\w/]+\.py)::(\w+)`"
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(re.search(named, row) for row in rows[1:])
    for path, name in re.findall(named, text):
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"


def test_security_says_what_is_supported_and_reports_are_sent_there():
    sections = re.findall(r"^## (.+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    is_released = any("unreleased" not in section for section in sections)
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert ("There is no release yet" in text) == (not is_released)
    for file in ("bug.yml", "config.yml"):
        assert "SECURITY.md" in (GITHUB / "ISSUE_TEMPLATE" / file).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem
)
def test_a_benchmark_finds_what_it_imports(path, monkeypatch):
    """Nothing else runs them between releases."""
    monkeypatch.syspath_prepend(path.parent)
    assert runpy.run_path(str(path), run_name="benchmark")["__doc__"]


def added_arguments(call):
    """Yield the attribute that ``add_argument(...)`` gives, or those of ``set_defaults(...)``."""
    if getattr(call.func, "attr", "") == "set_defaults":
        yield from (each.arg for each in call.keywords)
    if getattr(call.func, "attr", "") == "add_argument":
        names = [each.value for each in call.args if isinstance(each, ast.Constant)]
        dest = [each.value.value for each in call.keywords if each.arg == "dest"]
        yield (
            next((each for each in (*dest, *names) if not re.match("-[^-]", each)), "")
            .lstrip("-")
            .replace("-", "_")
        )


@pytest.mark.parametrize(
    "path",
    sorted((*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "tools").glob("*.py"))),
    ids=lambda path: path.stem,
)
def test_a_script_reads_the_arguments_it_declares(path):
    """A type checker takes any attribute of a namespace, and nothing else runs them between releases."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    declared = {
        name for call in nodes if isinstance(call, ast.Call) for name in added_arguments(call)
    }
    namespaces = {
        each.arg
        for each in nodes
        if isinstance(each, ast.arg)
        and each.annotation
        and ast.unparse(each.annotation).endswith("Namespace")
    } | {
        target.id
        for each in nodes
        if isinstance(each, ast.Assign) and "parse_args(" in ast.unparse(each.value)
        for target in each.targets
        if isinstance(target, ast.Name)
    }
    read = {
        each.attr
        for each in nodes
        if isinstance(each, ast.Attribute)
        and isinstance(each.value, ast.Name)
        and each.value.id in namespaces
    }
    assert read <= declared
