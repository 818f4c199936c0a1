"""``fedlas runs diagnose``: what it writes, of which runs, and what it refuses."""

import json
import re
import shutil

import numpy as np
import pytest

from fedlas.cli import main


@pytest.fixture(scope="module")
def folder(runs, tmp_path_factory):
    return shutil.copytree(runs("digits"), tmp_path_factory.mktemp("diagnose") / "bench")


def test_command_writes_page_and_numbers(folder, capsys):
    assert main(["runs", "diagnose", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "fedlas x 2" in printed
    content = json.loads((folder / "diagnose.json").read_text())
    assert [entry["run"] for entry in content] == ["ce-s0", "ce-s1", "fedlas-s0", "fedlas-s1"]
    spearman = content[2]["indicator"]["confidence"]["spearman"]
    assert spearman["low"] <= spearman["value"] <= spearman["high"]
    assert content[0]["strength_and_correctness"] is None
    assert content[2]["strength_and_correctness"]["pearson"]["value"] == pytest.approx(
        content[2]["gate"]["correlation"]
    )
    with np.load(folder / "diagnose.npz") as samples:
        assert set(samples) == {
            f"{run}/{name}"
            for run in ("ce-s0", "ce-s1", "fedlas-s0", "fedlas-s1")
            for name in (
                "score",
                "confidence",
                "correct",
                *(("psi", "alpha_i") if "fedlas" in run else ()),
            )
        }
        assert samples["fedlas-s0/psi"].mean() == pytest.approx(
            content[2]["gate"]["plus"] - content[2]["gate"]["minus"]
        )
    page = (folder / "diagnose.html").read_text()
    assert page.count("strength alpha_i and being right") == 2
    assert page.count('alt="Test image') > 10
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)


def test_unusable_runs_are_skipped_and_named(folder, tmp_path, capsys):
    bench = tmp_path / "bench"
    shutil.copytree(folder, bench)
    (bench / "ce-s0" / "checkpoint.pt").unlink()
    bare = bench / "fedlas-s1" / "predictions" / "test.npz"
    with np.load(bare) as arrays:
        np.savez(bare, **{name: arrays[name] for name in arrays if name != "features"})
    assert main(["runs", "diagnose", str(bench)]) == 0
    printed = capsys.readouterr().out
    assert "ce-s0 is left out: no checkpoint.pt" in printed
    assert (
        "fedlas-s1 is left out: predictions/test.npz without features (train.save_features=true)"
        in printed
    )
    assert [entry["run"] for entry in json.loads((bench / "diagnose.json").read_text())] == [
        "ce-s1",
        "fedlas-s0",
    ]
    assert main(["runs", "diagnose", str(bench / "fedlas-s1")]) == 2
    assert "the predictions must include features" in capsys.readouterr().err


def test_single_run_page_is_in_run_folder(folder, tmp_path):
    run = tmp_path / "fedlas-s0"
    shutil.copytree(folder / "fedlas-s0", run)
    assert main(["runs", "diagnose", str(run)]) == 0
    assert (run / "diagnose.html").is_file()


def test_errors_say_what_to_do(folder, tmp_path, capsys):
    for arguments, words in (
        ([str(tmp_path)], "each folder must be a run folder, or hold finished runs"),
        ([str(tmp_path / "none")], "the folder must be a run folder"),
    ):
        assert main(["runs", "diagnose", *arguments]) == 2
        assert words in capsys.readouterr().err
    run = tmp_path / "bare"
    shutil.copytree(folder / "ce-s0", run)
    (run / "predictions" / "val.npz").unlink()
    assert main(["runs", "diagnose", str(run)]) == 2
    assert "it must have val predictions" in " ".join(
        capsys.readouterr().err.replace("the run must", "it must").split()
    )
