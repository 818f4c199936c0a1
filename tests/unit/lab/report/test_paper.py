"""Published numbers, and what is said beside runs of the same cell."""

import csv
import json
from pathlib import Path

import pytest
import yaml

import fedlas.lab.report
from fedlas._core.check import InputError
from fedlas.lab.recipes.plan import Run
from fedlas.lab.recipes.recipe import load_recipe
from fedlas.lab.report.paper import FILE, against_paper
from fedlas.lab.report.published import published_numbers, published_ranks, rows_for, settings_that_differ
from fedlas.lab.runs.folder import FORMAT
from fedlas.losses import LOSSES


def finished(folder, recipe, loss, seed, *, overrides=(), **test):
    """A folder as a run leaves it, of which only numbers and configuration are looked at."""
    run = Run(load_recipe(recipe, overrides), loss, seed, folder / f"{loss}-s{seed}")
    run.folder.mkdir(parents=True)
    (run.folder / "config.yaml").write_text(yaml.safe_dump(run.config()))
    values = {"accuracy": 0.9, "ece": 0.05, "adaptive_ece": 0.06} | test
    metrics = {"format": FORMAT, "loss": loss, "seed": seed, "recipe": recipe, "test": values, "val": values}
    (run.folder / "metrics.json").write_text(json.dumps(metrics))


def config(recipe, loss, *overrides):
    return Run(load_recipe(recipe, overrides), loss, 0, Path()).config()


def row(source, data, method, model="ResNet-50"):
    (found,) = [
        r for r in published_numbers()
        if (r.data, r.method, r.model) == (data, method, model) and source in r.source
    ]  # fmt: skip
    return found


def test_every_row_of_the_file_is_read():
    path = Path(fedlas.lab.report.__file__).parent / "published_numbers.csv"
    with path.open(encoding="utf-8", newline="") as file:
        raw = list(csv.DictReader(file))
    rows = published_numbers()
    assert len(rows) == len(raw) == 58
    for given, found in zip(raw, rows, strict=True):
        assert found.source == given["source"]
        assert {k: f"{100 * v:.3f}" for k, v in found.values.items()} == {
            k: f"{float(given[k]):.3f}" for k in ("accuracy", "ece", "adaptive_ece") if given[k]
        }


def test_rows_are_plausible_and_of_losses_that_exist():
    for found in published_numbers():
        assert found.method in LOSSES
        assert 0 < found.values["ece"] < 0.2
        assert 0.5 < found.values.get("accuracy", 0.9) < 1
    assert {r.method for r in published_ranks()} <= set(LOSSES)
    assert all(1 <= rank <= 14 for r in published_ranks() for rank in r.ranks.values())


def test_the_same_model_if_there_is_one():
    assert {r.model for r in rows_for("cifar10", "resnet101", ["ce"])} == {"ResNet-101"}
    assert {r.model for r in rows_for("cifar10", "resnet8", ["ce"])} == {"ResNet-50", "ResNet-101"}
    assert {r.method for r in rows_for("cifar10", "resnet50", ["ce", "mbls"])} == {"ce", "mbls"}
    assert rows_for("digits", "resnet8", ["ce"]) == []


def test_the_published_recipe_does_not_differ_from_what_is_published():
    for data in ("cifar10", "cifar100", "tiny-imagenet"):
        for found in published_numbers():
            if found.data == data and found.protocol == "paper" and found.model_name:
                name = f"paper/{data}-{found.model_name}-published"
                assert settings_that_differ(config(name, found.method), found) == []


def test_what_differs_is_named_with_both_values():
    poster = row("MbLS", "cifar10", "mbls")
    found = settings_that_differ(config("cifar10", "mbls", "losses.mbls.margin=10", "train.precision=bf16"), poster)
    for expected in (
        "model.name: resnet8 here, resnet50 there", "train.epochs: 40 here, 350 there",
        "loss.margin: 10 here, 6 there", "train.precision: bf16 here, fp32 there",
    ):  # fmt: skip
        assert expected in found
    assert not [line for line in found if "width" in line or "criterion" in line or "batch_size" in line]
    assert not [line for line in settings_that_differ(config("cifar10", "ce"), poster) if line.startswith("loss")]


def test_a_default_that_is_written_out_does_not_differ():
    source = row("second hand", "cifar10", "fedlas")
    name = "paper/cifar10-resnet50-published"
    assert settings_that_differ(config(name, "fedlas", "losses.fedlas={variant: reference, alpha: 0.05}"), source) == []
    assert settings_that_differ(config(name, "fedlas", "model.stem=small"), source) == []


def test_other_protocols_say_what_is_known_of_them():
    here = config("paper/cifar10-resnet50", "ce")
    assert settings_that_differ(here, row("EUA-Cal", "cifar10", "ce")) == ["train.epochs: 350 here, 200 there"]
    assert settings_that_differ(here, row("AdaFocal", "cifar10", "ce")) == [
        "its losses are summed over a batch, not averaged"
    ]
    unstated = row("second hand", "cifar100", "ls", model="not stated")
    assert "the source does not state the model, resnet50 here" in settings_that_differ(
        config("paper/cifar100-resnet50-published", "ls"), unstated
    )
    acls = row("ACLS", "imagenet", "acls")
    assert settings_that_differ(here, acls) == ["its settings are not known to this library"]


@pytest.fixture
def bench(tmp_path):
    folder = tmp_path / "cifar10"
    for loss, ece in (("ce", 0.05), ("fedlas", 0.02), ("brier", 0.03)):
        for seed in (0, 1):
            finished(folder, "paper/cifar10-resnet50", loss, seed, ece=ece + 0.002 * seed)
    return folder


def table_rows(text):
    """Cells of the first table of a Markdown file."""
    lines = [line for line in text.split("\n\n## ")[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_ours_have_interval_floor_and_test_where_they_are_known(bench, capsys):
    for seed in (0, 1):
        noise = {"value": 0.02 + 0.002 * seed, "low": 0.01, "high": 0.04, "replicates": 99}
        noise |= {"floor": 0.006, "p": 0.2, "least_p": 0.01}
        file = bench / f"fedlas-s{seed}" / "intervals.json"
        file.write_text(json.dumps({"format": 3, "stages": {"test": {"ece": noise}}}))
    against_paper(bench)
    rows = table_rows((bench / FILE).read_text())
    (place,) = [number for number, row in enumerate(rows) if row[0] == "fedlas"]
    assert rows[place + 1][:6] == ["", "95 %, floor, p", "", "", "[1.00, 4.00], ~ floor 0.60, p = 0.2", ""]
    assert sum(row[1] == "95 %, floor, p" for row in rows) == 1
    assert "rejects calibration for no seed" in " ".join(capsys.readouterr().out.split())


def test_published_rows_stand_below_ours(bench, capsys):
    assert against_paper(bench) == 0
    rows = table_rows((bench / FILE).read_text())
    ours = {r[0]: r for r in rows if r[0]}
    assert ours["fedlas"] == ["fedlas", "here, 2 seeds", "resnet50", "90.00 ± 0.00", "2.10 ± 0.14", "6.00 ± 0.00", ""]
    after = rows[rows.index(ours["fedlas"]) + 1 :]
    assert after[0][:5] == ["", "FedLAS 2026 (second hand)", "ResNet-50", "-", "1.29"]
    assert after[1][3:6] == ["95.44", "1.32", "2.17"]
    assert "brier" in ours  # nothing is published of it
    text = capsys.readouterr().out
    assert "ResNet-101" not in text
    assert f"against the paper: {bench / FILE}" in text.replace("\n", "")
    assert "loss.variant: as usual here, reference there" in " ".join(text.split())


def test_letters_lead_to_the_settings(bench):
    finished(bench, "paper/cifar10-resnet50", "ls", 0)
    against_paper(bench)
    text = (bench / FILE).read_text()
    rows = table_rows(text)
    letters = {r[-1] for r in rows if not r[0]}
    assert letters >= {"a", "b", "c"}
    for letter in letters - {"-"}:
        assert f"\n- {letter}: " in text


def test_a_folder_of_cells_has_average_ranks(tmp_path):
    for data, better in (("cifar10", "fedlas"), ("cifar100", "ce")):
        for loss in ("ce", "fedlas", "ls"):
            ece = {better: 0.01, "ls": 0.02}.get(loss, 0.03)
            finished(tmp_path / data, f"paper/{data}-resnet50", loss, 0, ece=ece, adaptive_ece=0.04)
    against_paper(tmp_path)
    text = (tmp_path / FILE).read_text()
    assert "Average ranks over 2 cells here" in text
    ranks = text.split("Average ranks")[1]
    cells = {
        line.split("|")[1].strip(): [c.strip() for c in line.split("|")[3:6]]
        for line in ranks.splitlines()
        if "here, of 3 methods" in line
    }
    assert cells == {m: ["2.0", "2.0", "90.00"] for m in ("ce", "ls", "fedlas")}  # 1 and 3; 2 and 2; ties at 2
    assert "1.8" not in ranks  # fedlas+ was not run
    assert "78.74" in ranks


@pytest.mark.parametrize("against", ["papers", "", "report"])
def test_against_something_else(bench, against):
    with pytest.raises(InputError, match="--against must be one of paper"):
        against_paper(bench, against=against)


def test_nothing_to_compare(tmp_path):
    with pytest.raises(InputError, match="the folder must exist"):
        against_paper(tmp_path / "nowhere")
    with pytest.raises(InputError, match="at least one finished run"):
        against_paper(tmp_path)
    finished(tmp_path, "digits", "ce", 0)
    with pytest.raises(InputError, match=r"something must be published.*resnet8 on digits"):
        against_paper(tmp_path)
    assert not (tmp_path / FILE).exists()
    (tmp_path / "ce-s0" / "config.yaml").unlink()
    with pytest.raises(InputError, match=r"no config\.yaml"):
        against_paper(tmp_path)
