import pytest

from fedlas.cli import main
from fedlas.cli.listing import KINDS, listing
from fedlas.errors import InputError
from fedlas.losses import LOSSES, OnBase


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_table(kind):
    found = listing(kind)
    assert found.rows
    lines = found.markdown().splitlines()
    assert len(lines) == len(found.rows) + 2
    assert len({line.count(" | ") for line in lines}) == 1
    for row in found.rows:
        assert row["what it is"]
        assert ":func:" not in row["what it is"]


def test_losses_say_what_they_need_and_where_they_come_from():
    rows = {row["name"]: row for row in listing("losses").rows}
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


def test_needs_of_every_loss_show():
    for row in listing("losses").rows:
        kind = LOSSES[row["name"]].value
        assert bool(kind.needs) <= bool(row["needs"])
        own = any(
            "update_from_validation" in vars(each) for each in kind.__mro__ if each is not OnBase
        )
        assert own == ("validation" in row["needs"])


def test_calibrators_say_what_they_need_and_whether_the_class_stays():
    rows = {row["name"]: row for row in listing("calibrators").rows}
    assert (rows["temperature"]["needs"], rows["temperature"]["keeps the class"]) == ("", "yes")
    assert (rows["feature-clipping"]["needs"], rows["vector"]["keeps the class"]) == (
        "features",
        "no",
    )


def test_details_leave_out_what_is_empty():
    row = {
        "name": "x",
        "what it is": "y",
        "paper": "",
        "year": "",
        "linked": "",
        "defaults": "a 1",
        "needs": "",
    }
    assert listing("models").details(row) == "defaults: a 1"


def test_markdown_escapes_bars():
    assert all("|" not in cell for row in listing("losses").rows for cell in row["name"])
    for line in listing("losses").markdown().splitlines():
        assert line.startswith("| ")
        assert line.endswith(" |")


def test_printed(capsys):
    assert main(["list", "losses"]) == 0
    head, *lines, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "what", "it", "is"]
    assert [line.split()[0] for line in lines] == [row["name"] for row in listing("losses").rows]
    assert last == "options and papers: --markdown"
    main(["list", "losses", "--markdown"])
    assert capsys.readouterr().out.strip() == listing("losses").markdown()


def test_unknown_kind():
    with pytest.raises(InputError, match="Did you mean 'losses'"):
        listing("loses")
