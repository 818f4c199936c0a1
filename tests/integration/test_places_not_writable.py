"""A read-only folder, without the rights of root: each command says so in one line and leaves the folder as it was."""

import os
import shutil
import subprocess
import sys

import pytest

from fedlas.cli import main

pytestmark = pytest.mark.system
RUN = "import sys; from fedlas.cli import main; sys.exit(main(sys.argv[1:]))"
NAMED = ("--probs", "p", "--target", "y")


def test_commands_in_a_read_only_folder(tmp_path, monkeypatch):
    plain = []
    if os.geteuid() == 0:  # root may write anywhere
        if shutil.which("setpriv") is None:
            pytest.skip("root cannot be refused without setpriv")
        plain = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    monkeypatch.chdir(tmp_path)
    for name, step in (("v.csv", 5), ("t.csv", 7)):
        rows = "".join(f"{0.2 + i % step / 10:.1f},{i % 2}\n" for i in range(200))
        (tmp_path / name).write_text("p,y\n" + rows)
    fit = ["calibrate", "v.csv", *NAMED, "--method", "temperature", "--out"]
    assert main([*fit, "cal.json"]) == 0
    measure = ["evaluate", "v.csv", *NAMED, "--replicates"]
    card = ["card", "v.csv", "t.csv", *NAMED, "--replicates", "40", "--out"]
    assert main([*card, "card.json"]) == 0
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    tmp_path.chmod(0o555)
    for command in (
        [*fit, "cal.json"],
        ["apply", "cal.json", "v.csv"],
        [*measure, "0", "--report", "r.html"],
        [*measure, "40", "--require", "nll<=9", "--junit", "j.xml"],
        [*card, "card.json"],
        ["monitor", "card.json", "t.csv", *NAMED, "--state", "s.json"],
        ["bench", "demo", "--losses", "ce", "--seeds", "0", "--workers", "1", "--out", "runs"],
    ):
        process = subprocess.run(
            [*plain, sys.executable, "-c", RUN, *command], capture_output=True, text=True
        )
        errors = [line for line in process.stderr.splitlines() if line.startswith("fedlas: error:")]
        assert process.returncode == 2, (command, process.stderr)
        assert len(errors) == 1, (command, process.stderr)
        assert "must be writable" in errors[0], (command, errors)
        assert "Traceback" not in process.stderr, command
    tmp_path.chmod(0o755)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
