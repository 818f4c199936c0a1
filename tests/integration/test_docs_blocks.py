"""Every fenced block of the documentation is run: Python and commands in the order of the page, in a folder of its own.

What cannot run says so in an HTML comment right before the block, with a reason: ``<!-- not run: ... -->`` or
``<!-- parsed only: ... -->``. ``<!-- exits with 2 -->`` goes before commands that fail on purpose. A ``text`` block is
what the block before it printed. Commands run with settings that make them quick; as they were written they are parsed.
"""

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from fedlas.cli import main
from fedlas.cli import parse as parse_words
from fedlas.errors import MissingExtraError
from fedlas.lab.benches import load_recipe_group
from fedlas.lab.recipes import is_recipe_group, load_recipe, parse_yaml_value, plan_runs
from markdown_blocks import DRAWINGS, OUTSIDE, PAGES, ROOT, blocks_in, blocks_of

pytestmark = pytest.mark.system

SMALL = ["train.epochs=1", "data.train_size=100", "data.test_size=100", "model.width=4"]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
ALL = [block for page in [*PAGES, *OUTSIDE] for block in blocks_of(page)]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def with_blocks():
    return [page for page in PAGES if blocks_of(page)]


@pytest.mark.parametrize("page", with_blocks())
def test_the_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # where Python finds the files of the page, as in a folder of one's own
    monkeypatch.syspath_prepend(tmp_path)
    namespace, printed = {"__name__": page}, None
    for block in blocks_of(page):
        printed = run(block, namespace, printed)


def run(block, namespace, printed):
    """Run one block; returns what it printed, or None if there is nothing to compare with."""
    if block.marker == "not run" or (block.page, block.place) in DRAWINGS:
        return None
    runners = {"python": run_python, "console": run_console, "yaml": load_yaml, "text": compare}
    assert block.language in runners, (
        f"{block.where}: nothing runs a block in {block.language!r}; mark it, with a reason"
    )
    try:
        return runners[block.language](block, namespace, printed)
    except (ModuleNotFoundError, MissingExtraError) as error:
        if "FEDLAS_CI" in os.environ:
            raise
        pytest.skip(f"{block.where}: {error}")


def run_python(block, namespace, _):
    if block.title is not None:
        Path(block.title).write_text(block.text, encoding="utf-8")
        return None
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(block.text, block.where, "exec"), namespace)
    return out.getvalue()


def run_console(block, _namespace, _printed):
    printed = ""
    for words in block.commands():
        checked = check(words, block)
        if checked and block.marker != "parsed only":
            expected = int(block.said) if block.marker == "exits with" else 0
            status, said = execute(words)
            assert status == expected, (
                f"{block.where}: {' '.join(words)} ended with {status}\n{said}"
            )
            printed += said
    return None if block.marker == "parsed only" else printed


def execute(words):
    """Status and output of a command in the present folder, made quick."""
    if words[0] == "python":
        here = Path.cwd()
        # the tests are there, the user's file is here
        checkout = ROOT if words[1:3] == ["-m", "pytest"] else here
        paths = os.pathsep.join([str(here), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
        command = [sys.executable, words[1], *quick(words[2:])]
        done = subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        try:
            status = main(quick(words[1:]))
        except SystemExit as ended:  # argparse's own complaints
            status = ended.code
    return status, out.getvalue()


def without(arguments, option):
    """The arguments without an option and its values."""
    if option not in arguments:
        return arguments
    start = arguments.index(option)
    end = start + 1
    while end < len(arguments) and not arguments[end].startswith("-"):
        end += 1
    return [*arguments[:start], *arguments[end:]]


def quick(arguments):
    """The same command with few epochs, images, losses, seeds and replicates, where it does not say how many itself."""
    verb = " ".join(arguments[:2]) if arguments[0] == "runs" else arguments[0]
    # A bench with calibrators is shown with its results, so its page keeps it small.
    if verb in ("runs train", "bench", "tune") and not {"--dry-run", "--method"} & {*arguments}:
        few = [word for value in SMALL for word in ("--set", value)]
        if verb == "bench":
            losses = parse_words(arguments).losses or ["ce", "fedlas"]
            few += ["--losses", *sorted({losses[0], losses[-1]}, key=losses.index), "--seeds", "0"]
            arguments = without(without(arguments, "--losses"), "--seeds")
        return arguments + few
    if verb in ("runs report", "evaluate", "card", "export") and "--replicates" not in arguments:
        return [*arguments, "--replicates", "39"]
    return arguments


def check(words, block):
    """Whether the command is one to run; an error if it is none that there is."""
    program, *rest = words
    if program in ("accelerate", "torchrun") or rest[:2] == ["-m", "fedlas"]:
        program, rest = "fedlas", rest[rest.index("-m") + 2 :]
        parse(rest, block)
        return False
    if program == "fedlas":
        return parse(rest, block)
    if program == "python" and rest[:2] == ["-m", "pytest"]:
        assert any((ROOT / word).exists() for word in rest), f"{block.where}: no such tests"
        return True
    if program == "python":
        if (ROOT / rest[0]).exists():
            return False
        # a block of the page wrote it
        assert Path(rest[0]).exists(), f"{block.where}: no file {rest[0]}"
        return bool(parse_words(rest[1:]))
    if program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), flags=re.M), (
            f"{block.where}: make {rest[0]}"
        )
        return False
    if program == "pip":
        for extras in re.findall(r"\[([a-z,]+)\]", " ".join(rest)):
            assert set(extras.split(",")) <= set(EXTRAS), f"{block.where}: {extras}"
        return False
    assert block.marker == "parsed only", (
        f"{block.where}: is {program} a command? Mark the block, with a reason."
    )
    return False


def parse(arguments, block):
    if block.marker == "exits with":
        return True
    parsed = parse_words(arguments)
    recipe = getattr(parsed, "recipe", None)
    if recipe is not None and (not recipe.endswith(".yaml") or Path(recipe).exists()):
        losses = (
            parsed.losses
            if parsed.subcommand == "bench"
            else [parsed.loss]
            if parsed.subcommand == "train"
            else []
        )
        # builds every loss that it would train with
        assert load_recipe_group(recipe, parsed.set).plan(losses=losses)
    return True


def load_yaml(block, _namespace, _printed):
    """A whole recipe, a group, or a part of a recipe; every loss that it names is built."""
    name = block.title or "block.yaml"
    Path(name).write_text(block.text, encoding="utf-8")
    content = parse_yaml_value(block.text, block.where)
    if is_recipe_group(content):
        assert load_recipe_group(name).plan()
        return
    whole = "extends" in content or "model" in content
    if not whole:
        name = "part.yaml"
        Path(name).write_text(f"extends: digits\n{block.text}", encoding="utf-8")
    recipe = load_recipe(name)
    assert plan_runs(recipe, losses=sorted({*recipe.losses, *recipe.methods}), seeds=[0])


def compare(block, _namespace, printed):
    assert printed is not None, (
        f"{block.where}: what printed this? It must follow a block that is run."
    )
    assert block.text.strip(" .\n"), f"{block.where}: dots alone are like anything."
    if not doctest.OutputChecker().check_output(block.text, printed, FLAGS):
        raise AssertionError(f"{block.where} says\n{block.text}\nbut this was printed\n{printed}")


@pytest.mark.parametrize("page", OUTSIDE)
def test_the_commands_of_other_pages_exist(page):
    for block in blocks_of(page):
        # the first two by test_readme
        tested = page == "README.md" and block.language in ("python", "text", "bibtex")
        assert block.language == "console" or tested or block.marker == "not run", block.where
        if block.language == "console":
            for words in block.commands():
                check(words, block)


def test_what_is_not_run_says_why(record_property):
    reasons = {
        block.where: f"{block.marker}: {block.said}"
        for block in ALL
        if block.marker in ("not run", "parsed only")
    }
    for where, reason in reasons.items():
        record_property(where, reason)
        print(f"{where}  {reason}")
        assert len(reason.split(": ", 1)[1].split()) >= 3, f"{where}: {reason} is no reason"
    assert len(reasons) < len(ALL) / 3


def test_drawings_are_where_they_are_said_to_be():
    bare = {(block.page, block.place) for block in ALL if not block.language}
    assert bare == set(DRAWINGS)


def test_nothing_is_skipped_silently(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = "```python\nprint(1)\n```\n", "```text\n2\n```\n"
    out = run(blocks_in(first, "p")[0], {}, None)
    assert out == "1\n"
    with pytest.raises(AssertionError, match="but this was printed"):
        run(blocks_in(second, "p")[0], {}, out)
    for text in (
        "```rust\n```",
        "```\nx\n```",
        "```console\nfedlsa list losses\n```",
        "```text\n1\n```",
    ):
        with pytest.raises(AssertionError):
            run(blocks_in(text, "p")[0], {}, None)
    with pytest.raises(SystemExit):
        run(blocks_in("```console\nfedlas bench digits --lossess ce\n```", "p")[0], {}, None)
    with pytest.raises(AssertionError, match="ended with 2"):
        run(blocks_in("```console\nfedlas list lossess\n```", "p")[0], {}, None)
    with pytest.raises(AssertionError, match="says nothing"):
        blocks_in("<!-- not run -->\n```python\n```", "p")
    with pytest.raises(AssertionError, match="not closed"):
        blocks_in("```python\nx", "p")


def test_a_marker_and_the_words_of_a_command():
    (block,) = blocks_in(
        "<!-- parsed only: for a reason -->\n\n```console\nA=1 fedlas \\\n  list losses  # x\n```",
        "p",
    )
    assert (block.marker, block.said, block.commands()) == (
        "parsed only",
        "for a reason",
        [["fedlas", "list", "losses"]],
    )
    (block,) = blocks_in(
        "<!-- commands of this page are parsed only: a cluster -->\n```console\nfedlas list x\n```",
        "p",
    )
    assert (block.marker, block.said) == ("parsed only", "a cluster")


@pytest.fixture(autouse=True)
def _generators():
    """Pages seed what they draw; nothing of it reaches other tests."""
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)
