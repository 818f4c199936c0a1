"""Names from files reach the terminal and the files of a report as text: no command, no markup, no formula."""

import json
import unicodedata

import pytest
import yaml

from fedlas.cli import main
from hostile import TERMINAL

EVIL = TERMINAL
SEEN = r"\x1b]0;title\x07\x9b2J\r\nb\u202e"


def commands(text):
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, bench_writer):
    """A bench whose runs hold, in place of every name, one that a terminal, Markdown or HTML would obey."""
    folder = bench_writer(
        tmp_path_factory.mktemp("hostile") / "b", losses=("ce", "ls"), seeds=(0, 1), samples=80
    )
    for run in folder.iterdir():
        loss = run.name.split("-")[0] + EVIL
        metrics = json.loads((run / "metrics.json").read_text())
        (run / "metrics.json").write_text(
            json.dumps(metrics | {"loss": loss, "recipe": EVIL, "notes": [EVIL]})
        )
        config = yaml.safe_load((run / "config.yaml").read_text())
        config |= {"recipe": EVIL, "loss": {"name": loss}, "model": {"name": EVIL}}
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        run.rename(run.with_name(run.name + EVIL.replace("/", "")))
    (folder / f"bad{EVIL.replace('/', '')}").mkdir()
    (folder / f"bad{EVIL.replace('/', '')}" / "error.txt").write_text(EVIL)
    return folder


def call(capsys, *arguments, status=0):
    assert main([*map(str, arguments)]) == status
    captured = capsys.readouterr()
    assert not commands(captured.out + captured.err)
    return captured.out + captured.err


def run_of(folder):
    return next(path for path in folder.iterdir() if path.name.startswith("ce-s0"))


@pytest.mark.system
def test_report(folder, capsys):
    call(capsys, "runs", "report", folder, "--replicates", "0")
    said = "".join(call(capsys, "runs", "report", folder, "--replicates", "0", "--details").split())
    assert SEEN in said
    assert "[red]" in said
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text(encoding="utf-8")
        assert not commands(text)
        assert "<b>[/red]" not in text.replace("\\<", "")
    for line in (folder / "report.md").read_text(encoding="utf-8").splitlines():
        assert not line.startswith("b")  # no name ends its line


def test_run_page(folder, capsys):
    call(capsys, "runs", "report", run_of(folder), "--replicates", "0")
    page = (run_of(folder) / "report.html").read_text(encoding="utf-8")
    assert SEEN[:20] in page
    assert not commands(page)


@pytest.mark.parametrize("markdown", [False, True])
def test_compare(folder, capsys, markdown):
    said = call(capsys, "compare", folder, f"ce{EVIL}:ls{EVIL}", *["--markdown"] * markdown)
    assert SEEN in "".join(said.split()).replace("\\\\", "\\")
    if markdown:
        (row,) = [line for line in said.splitlines() if line.startswith("| ce")]
        assert "\\|\\<b>" in row


def test_card(folder, capsys):
    run = run_of(folder)
    assert SEEN in call(capsys, "card", run, "--replicates", "0")
    assert not commands((run / "card.html").read_text(encoding="utf-8"))


def test_evaluate(folder, capsys):
    run = run_of(folder)
    page = folder / "page.html"
    file = run / "predictions" / f"t{EVIL.replace('/', '')}.npz"
    file.write_bytes((run / "predictions" / "test.npz").read_bytes())
    assert SEEN in call(capsys, "evaluate", file, "--replicates", "0", "--report", page)
    assert not commands(page.read_text(encoding="utf-8"))
    file.unlink()


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate"],
        ["card"],
        ["runs report"],
        ["runs ood", "--data", "digits", "--"],
        ["bench"],
        ["list"],
    ],
)
def test_errors(capsys, arguments):
    try:
        status = main([*arguments, "no" + EVIL])
    except SystemExit as ended:
        status = ended.code
    captured = capsys.readouterr()
    assert status == 2
    assert SEEN in captured.err
    assert not commands(captured.err)
    assert captured.err.count("\n") == 1
