import pytest

from fedlas.cli import main
from fedlas.losses import LOSSES, LossWrapper

KINDS = "losses metrics calibrators datasets models uncertainty executors ood corruptions recipes tuning"


@pytest.fixture
def listed(capsys):
    """``listed(kind)``: rows of the Markdown table, cells by heading; headings without a cell are left out."""

    def rows(*kind):
        assert main(["list", *kind, "--markdown"]) == 0
        head, _, *lines = (
            line[2:-2].split(" | ") for line in capsys.readouterr().out.strip().splitlines()
        )
        return [dict(zip(head, cells, strict=True)) for cells in lines]

    return rows


def test_every_kind_is_a_table(listed):
    assert [row["name"] for row in listed()] == KINDS.split()
    for kind in KINDS.split():
        rows = listed(kind)
        assert rows
        for row in rows:
            assert row["what it is"]
            assert ":func:" not in row["what it is"]


def test_losses_list_needs_and_papers(listed):
    rows = {row["name"]: row for row in listed("losses")}
    assert list(rows) == list(LOSSES)
    assert rows["ce"]["needs"] == ""
    assert rows["fedlas"]["needs"] == "features"
    assert rows["rankmixup-mrl"]["needs"] == "more forward passes"
    assert rows["mixup"]["needs"] == "mixes inputs, what its base needs"
    assert rows["modulated"]["needs"] == "features, what its base needs"
    assert rows["tempered-past"]["needs"] == "sample index, validation"
    assert rows["mbls"]["defaults"] == "alpha 0.1, margin 10, form sum"
    assert rows["focal"]["note"] == "written from the paper"
    assert rows["mmce"]["note"] == "written from the paper, pairwise cost"
    assert all(row["note"] and row["year"] for row in rows.values())


def test_needs_of_every_loss_show(listed):
    for row in listed("losses"):
        kind = LOSSES[row["name"]].value
        assert bool(kind.needs) <= bool(row["needs"])
        own = any(
            "update_from_validation" in vars(each)
            for each in kind.__mro__
            if each is not LossWrapper
        )
        assert own == ("validation" in row["needs"])


def test_calibrators_list_needs_and_argmax(listed):
    rows = {row["name"]: row for row in listed("calibrators")}
    assert (rows["temperature"]["needs"], rows["temperature"]["keeps the class"]) == ("", "yes")
    assert (rows["feature-clipping"]["needs"], rows["vector"]["keeps the class"]) == (
        "features",
        "no",
    )


def test_printed(listed, capsys):
    rows = listed("losses")
    assert main(["list", "losses"]) == 0
    head, *lines, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "what", "it", "is"]
    assert [line.split()[0] for line in lines] == [row["name"] for row in rows]
    assert last == "options and papers: --markdown"
    assert main(["list", "tuning"]) == 0  # its rows have no other cells
    assert "--markdown" not in capsys.readouterr().out


def test_unknown_kind(capsys):
    assert main(["list", "loses"]) == 2
    assert "Did you mean 'losses'" in capsys.readouterr().err


def test_corruptions_are_listed(capsys):
    assert main(["list", "corruptions"]) == 0
    assert "glass-blur" in capsys.readouterr().out
