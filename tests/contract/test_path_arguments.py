"""Paths on the command line: an address is read as it is given, or refused; never as a folder of that name."""

from argparse import ArgumentTypeError
from pathlib import Path

import numpy as np
import pytest

from fedlas.cli import parsers, run

ARGUMENTS = [
    pytest.param(action, id=f"{name} {action.option_strings[:1] or action.dest}")
    for name, parser in parsers()[1].items()
    for action in parser._actions
    if action.type is not None and action.type not in (int, float)
]


@pytest.mark.parametrize("action", ARGUMENTS)
def test_an_argument_of_a_path_keeps_an_address_or_refuses_it(action):
    for address in ("hdfs:///data/a.csv", "s3://bucket/a.csv"):
        try:
            assert str(action.type(address)) == address
        except (ArgumentTypeError, ValueError):
            assert action.dest not in ("file", "files", "on", "places")
    assert (
        action.dest in ("command", "max_missing", "workers")
        or str(action.type("file:///a/b")) == "/a/b"
    )


def test_every_positional_of_a_file_has_such_a_type():
    texts = {"init": "source", "calibrate": "files", "apply": "files", "evaluate": "file"}
    texts |= {"compare": "names", "card": "places", "monitor": "files", "export": "place"}
    assert texts.keys() <= parsers()[1].keys()
    for name, parser in parsers()[1].items():
        types = {action.dest: action.type for action in parser._actions}
        assert Path not in types.values(), name
        assert name not in texts or types[texts[name]] is not None


FAST = ("--method", "none", "--replicates", "0")


def test_commands_read_a_file_at_an_address(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("val", "test", "other"):
        # The same labels in all: two models on the same samples.
        p = rng.uniform(0.1, 0.5, 300) + 0.4 * (np.arange(300) % 2)
        rows = [f"{a:.4f},{row % 2}" for row, a in enumerate(p)]
        Path(f"{name}.csv").write_text("\n".join(["p,y", *rows]))
    named = ["--probs", "p", "--target", "y"]
    val, test, other = (f"file://{tmp_path}/{name}.csv" for name in ("val", "test", "other"))
    commands = [
        ["calibrate", val, *named, "--method", "temperature", "--out", "cal.json"],
        ["apply", f"file://{tmp_path}/cal.json", test, "--out", f"file://{tmp_path}/out.csv"],
        ["evaluate", test, "--on", val, *named, "--method", "temperature", "--replicates", "0"],
        ["compare", val, test, *named, "--replicates", "40"],
        ["card", val, test, *named, *FAST],
        ["monitor", f"file://{tmp_path}/test.card.json", other, *named],
    ]
    for words in commands:
        assert run(words) in (0, 3), words
    assert Path("out.csv").read_text().count("\n") == 301
    assert not Path("file:").exists()


def test_monitor_and_card_read_a_file_in_a_store(tmp_path, monkeypatch):
    import fsspec

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    for name in ("val", "test", "live"):
        p = rng.uniform(0.1, 0.9, 300)
        rows = [f"{a:.4f},{int(b)}" for a, b in zip(p, rng.random(300) < p, strict=True)]
        with fsspec.open(f"memory://cards/{name}.csv", "w") as file:
            file.write("\n".join(["p,y", *rows]))
    named = ["--probs", "p", "--target", "y"]
    files = ["memory://cards/val.csv", "memory://cards/test.csv"]
    with pytest.raises(Exception, match="--out is required"):
        run(["card", *files, *named])
    assert run(["card", *files, *named, *FAST, "--out", "card.json"]) == 0
    history = ["--history", "history.json"]
    assert run(["monitor", "card.json", "memory://cards/live.csv", *named, *history]) == 0
    assert '"period": "live"' in Path("history.json").read_text()


def test_a_folder_of_parquet_is_a_table_wherever_files_are(tmp_path, monkeypatch):
    """Without columns ``evaluate`` took it for a run, ``init`` for images, and ``card`` refused it."""
    pandas = pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    for name in ("val", "test"):
        Path(name).mkdir()
        for part in ("a", "b"):
            p = rng.uniform(0.1, 0.9, 150)
            frame = pandas.DataFrame({"p": p, "y": (rng.random(150) < p).astype(int)})
            frame.to_parquet(f"{name}/{part}.parquet")
    named = ["--probs", "p", "--target", "y"]
    with pytest.raises(Exception, match=r"scores and labels must be named.* with columns p, y"):
        run(["evaluate", "test"])
    with pytest.raises(Exception, match=r"Pass one of its files, fedlas init test/a\.parquet"):
        run(["init", "test"])
    assert run(["init", "test/a.parquet"]) == 0
    assert run(["card", "val", "test", *named, *FAST]) == 0
    assert run(["monitor", "test.card.json", "test", *named]) == 0
