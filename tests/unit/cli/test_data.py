"""``fedlas data check``: whether a data set can be used, and what is wrong with it."""

import numpy as np

from fakes_data import FAKES
from fedlas.cli import main


def test_data_set_is_checked_against_published_counts(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("FEDLAS_DATA", raising=False)
    assert main(["data", "check", "digits"]) == 0
    assert "digits can be used; every sample was read." in capsys.readouterr().out
    root = str(FAKES["cub"](tmp_path))
    assert main(["data", "check", "cub", root, "--quick"]) == 1
    out = capsys.readouterr().out
    assert "There are 18 images in train; the published data set has 5,994." in out
    assert "Extract the archive again" in out
    assert main(["data", "check", "cub", f"{root}/CUB_200_2011/images"]) == 2
    assert "none of them in" in capsys.readouterr().err
    assert main(["data", "check", "svhn"]) == 2
    assert "$FEDLAS_DATA is not set" in capsys.readouterr().err


def test_check_counts_rows(tmp_path, capsys):
    assert main(["data", "check", "table", str(FAKES["table"](tmp_path))]) == 0
    out = capsys.readouterr().out
    assert "7 features" in out
    assert "48" in out
    np.testing.assert_equal(out.count("in memory"), 2)
