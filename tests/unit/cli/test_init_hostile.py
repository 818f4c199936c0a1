"""What fedlas init writes is run: no name in a table, file or folder becomes a command, or a key of a recipe."""

import csv
import json
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from fedlas.cli import main
from hostile import LINES

PWNED = "touch PWNED #"
NAMES = {
    **{f"line end {end!r}": f"x{end}{PWNED}{end}" for end in LINES},
    "escape": f"x\x1b[2K\x1b[1A\n{PWNED}",
    "joiner": f"x\u200d\n{PWNED}",
    "right to left": f"x\u202e\n{PWNED}",
    "emoji": f"x😀\n{PWNED}",
    "substitution": "x$(touch PWNED)",
    "backquotes": "x`touch PWNED`",
    "quote": f"x'; {PWNED}",
    "quotes": f'x"; {PWNED}',
    "quoted newline": f"x'\n{PWNED}\n'",
    "command": f"x; {PWNED}",
    "pipe": f"x| {PWNED}",
    "redirection": "x> PWNED",
    "backslash": f"x\\\n{PWNED}",
    "comment": "x #",
    "variable": "x${IFS}y",
    "pattern": "x*[a]?",
    "comma": "x,y",
    "blank": " x ",
    "option": "--out=PWNED",
    "option inside": f"{'x' * 60} --out=PWNED",
    "key": "x: {a: 1}\nseeds: [9]",
}
SPELLED = ("quote", "quotes", "quoted newline", "backslash", "pattern", "comma", "blank", "option")
"""Names that are hard to say in an option: the commands are then run too, not only noted."""
PLACES = (
    *("score", "scores named as classes", "scores with a prefix", "several labels", "confidence"),
    *("labels", "covariate", "value", "file", "folder", "out", "target"),
)
ROWS = range(60)
YES = [0.1 + 0.013 * row for row in ROWS]
NO = [1 - each for each in YES]


def table(name, place):
    """Return the columns of a table in which ``name`` stands at ``place``."""
    churned = ["yes" if row * 7 % 60 < row else "no" for row in ROWS]
    plan = ["basic", "pro", "free"] * 20
    if place == "score":
        return {f"p_{name}": YES, "y": [name if cell == "yes" else "no" for cell in churned]}
    if place == "scores named as classes":
        return {name: YES, "b": NO, "y": [name, "b"] * 30}
    if place == "scores with a prefix":
        return {f"{name}_a": YES, f"{name}_b": NO, "y": ["a", "b"] * 30}
    if place == "several labels":
        return {f"p_{name}": YES, "p_b": YES, f"y_{name}": [0, 1] * 30, "y_b": [1, 0] * 30}
    if place == "confidence":
        return {f"{name}_confidence": YES, "correct": [0, 1] * 30}
    if place in ("labels", "target"):
        return {"p_yes": YES, name: churned, "plan": plan}
    if place == "covariate":
        return {"p_yes": YES, "churned": churned, name: plan}
    return {"p_yes": YES, "churned": churned, "plan": [name, "basic"] * 30}


def write_table(path, columns):
    rows = list(zip(*columns.values(), strict=True))
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([[*columns], *rows])
    else:
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
        path.write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture
def run_script(tmp_path):
    """Return a function that runs a script with sh, where fedlas only notes its arguments, and returns these."""
    fake = tmp_path / "programs" / "fedlas"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nprintf \'%s\\0\' "$@" END >> "$NOTED"\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    noted = tmp_path / "noted"
    environment = {"PATH": f"{fake.parent}{os.pathsep}{os.environ['PATH']}", "NOTED": str(noted)}

    def run(script):
        noted.write_bytes(b"")
        subprocess.run(["sh", script], check=True, env=environment)
        return [call.split("\0") for call in os.fsdecode(noted.read_bytes()).split("\0END\0")[:-1]]

    return run


@pytest.mark.system
@pytest.mark.parametrize(
    ("place", "suffix"),
    [*((place, ".csv") for place in PLACES), ("labels", ".jsonl"), ("covariate", ".jsonl")],
)
def test_names_in_scripts_run_nothing(tmp_path, monkeypatch, capsys, run_script, place, suffix):
    written = 0
    for number, (kind, name) in enumerate(NAMES.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        path = Path(f"{name}{suffix}" if place == "file" else f"t{suffix}")
        if place == "folder":
            path = Path(name) / path
            path.parent.mkdir()
        write_table(path, table(name, place))
        out = f"{name}.sh" if place == "out" else f"{path.stem}.sh"
        options = {"out": [f"--out={out}"], "target": [f"--target={name}"]}.get(place, [])
        status = main(["init", *options, "--", str(path)])
        shown = capsys.readouterr()
        assert "\x1b" not in shown.out + shown.err
        if status == 2:  # it asks for what it cannot know
            assert not Path(out).exists()
            continue
        written += 1
        evaluate, calibrate = run_script(f"./{out}")
        left = {str(each) for each in Path().rglob("*") if each.is_file()}
        assert left == {str(path), out}, kind
        assert (evaluate[0], calibrate[0]) == ("evaluate", "calibrate"), kind
        assert calibrate[1 : len(evaluate)] == evaluate[1:], kind
        if kind in SPELLED and place not in ("value", "file", "folder", "out"):
            assert main([*evaluate, "--replicates", "0"]) == 0, (kind, capsys.readouterr().err)
            capsys.readouterr()
    # An option's names have no blanks or line breaks at their ends, so that such a column is asked for.
    ends = sum(name != name.strip() for name in NAMES.values()) if place == "target" else 0
    assert written >= len(NAMES) - 2 - ends


@pytest.mark.system
def test_file_name_of_any_bytes_is_kept(tmp_path, monkeypatch, run_script):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"x\xff\n" + PWNED.encode())
    write_table(Path(f"{name}.csv"), table("x", "value"))
    assert main(["init", f"{name}.csv"]) == 0
    assert run_script(f"{name}.sh")[0][1] == f"{name}.csv"
    assert not Path("PWNED").exists()


def test_folder_names_stay_values_of_recipes(tmp_path):
    pytest.importorskip("PIL")
    from PIL import Image

    from fedlas.lab.recipes import parse_yaml

    recipes = []
    for name in [*NAMES.values(), os.fsdecode(b"x\xff")]:
        for kind in ("a", "b"):
            folder = tmp_path / name / f"{kind}{name}"
            folder.mkdir(parents=True)
            for color in range(0, 250, 50):
                Image.new("L", (8, 8), color + (kind == "a")).save(folder / f"{color}.png")
        out = tmp_path / f"{len(recipes)}.yaml"
        assert main(["init", str(tmp_path / name), "--out", str(out)]) == 0
        recipe = parse_yaml(out.read_text())
        assert recipe.pop("title") == name
        assert recipe["data"].pop("root") == str(tmp_path / name)
        recipes.append(recipe)
    assert all(recipe == recipes[0] for recipe in recipes)


def test_long_names_take_linear_time(tmp_path, monkeypatch):
    # what patterns of names begin with, repeat or end with
    kinds = [
        "1",
        "a",
        "_",
        "p_",
        "1_",
        "a_",
        "prob",
        "score",
        "conf",
        "label",
        " ",
        "-",
        ".",
        "*",
        ",",
        '"',
    ]
    names = [(kind * 20_000)[:20_000] + end for kind in kinds for end in ("", "_", "\n", "0")]
    monkeypatch.chdir(tmp_path)
    counts = {name: [row + place for row in ROWS] for place, name in enumerate(names)}
    write_table(Path("t.csv"), {**counts, **table("plan", "covariate")})

    def stop(*_):
        raise AssertionError("the names took 9 seconds of the processor")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, 9.0)
    try:
        assert main(["init", "t.csv"]) == 0
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
