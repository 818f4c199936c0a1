"""``fedlas compare FILES --with FILES`` and ``fedlas.compare`` of two lists: methods over seeds of anyone's loop."""

import json
import math
import re
from statistics import mean, stdev

import pytest
import torch
from scipy.stats import t as student

import fedlas
from fedlas import Predictions
from fedlas.cli import main
from fedlas.errors import InputError
from fedlas.metrics import METRICS
from fedlas.stats import holm, mean_interval, paired_t_test


def trained(scale, seed, samples=400):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(samples, 4, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    noise = torch.randn(samples, 4, generator=torch.Generator().manual_seed(seed + 1))
    return Predictions(scale * (logits + 0.2 * noise), target)


@pytest.fixture
def seeds():
    """Predictions of three seeds of two losses; the second is over-confident."""
    return [trained(1.0, seed) for seed in range(3)], [trained(2.5, 10 + seed) for seed in range(3)]


@pytest.fixture
def files(seeds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for loss, predictions in zip(("ls", "ce4"), seeds, strict=True):
        for seed, each in zip((2, 7, 11), predictions, strict=True):
            each.save(tmp_path / f"cifar10-{loss}-s{seed}.npz")
    return tmp_path


LISTS = ["cifar10-ls-s*.npz", "--with", "cifar10-ce4-s*.npz"]


def test_lists_are_tested_as_a_bench_is(seeds):
    found = fedlas.compare(*seeds)
    assert list(found) == ["accuracy", "nll", "brier", "ece"]
    for name, each in found.items():
        a, b = ([METRICS[name].value(one) for one in side] for side in seeds)
        assert each.values == (tuple(a), tuple(b))
        assert each.p_value == paired_t_test(a, b).p_value
        gaps = [x - y for x, y in zip(a, b, strict=True)]
        assert (each.low, each.high) == mean_interval(gaps)
        assert (each.unit, each.count) == ("seeds", 3)
    assert [each.p for each in found.values()] == holm([each.p_value for each in found.values()])
    assert found["nll"].better == "a"
    assert fedlas.compare(*seeds[::-1])["nll"].better == "b"
    assert (found.unit, found.samples) == ("seeds", 400)
    narrow = fedlas.compare(*seeds, ["nll"], confidence_level=0.5)["nll"]
    assert found["nll"].low < narrow.low < narrow.high < found["nll"].high
    assert list(found.to_frame().loc["nll", ["unit", "count"]]) == ["seeds", 3]
    assert found.fail_if_worse("nll").status == 0
    assert fedlas.compare(*seeds[::-1]).fail_if_worse("nll").status == 3


def test_two_classes_are_compared_by_the_event(seeds):
    sides = [
        [
            Predictions(each.tensors().logits[:, :2], (each.tensors().target > 1).long())
            for each in side
        ]
        for side in seeds
    ]
    found = fedlas.compare(*sides)
    assert list(found) == ["auroc", "nll", "brier", "ece"]
    assert found.event == "class 1"
    assert list(fedlas.compare(*sides, top_label=True))[-1] == "top_label_ece"


def test_lists_that_do_not_pair_are_refused(seeds):
    one, other = seeds
    for wrong, match in (
        ((one, other[:2]), "same number of seeds, at least 2.*got 3 and 2"),
        ((one[:1], other[:1]), "same number of seeds, at least 2.*got 1 and 1"),
        ((one, other[0]), "both be lists of predictions; got one of each"),
        ((one, [*other[:2], one[0]]), "the same object twice"),
        (
            (one, [*other[:2], trained(1.0, 5, samples=300)]),
            "seed 3 of a and seed 3 of b must be.*400 and 300",
        ),
        ((one, [other[0], "ce.npz", other[1]]), "predictions must be Predictions"),
    ):
        with pytest.raises(InputError, match=match):
            fedlas.compare(*wrong)
    shuffled = Predictions(other[1].tensors().logits, other[1].tensors().target.roll(1))
    with pytest.raises(InputError, match=r"seed 2 of a and seed 2 of b .*same samples.*different"):
        fedlas.compare(one, [other[0], shuffled, other[2]])
    for option in ({"replicates": 99}, {"groups": ["a"] * 400}, {"seed": 1}):
        with pytest.raises(InputError, match="replicates, seed and groups must not be passed"):
            fedlas.compare(one, other, **option)


def test_seeds_without_a_spread_have_no_test(seeds):
    one, _ = seeds
    moved = [each.with_logits(each.tensors().logits) for each in one]
    same = fedlas.compare(one, moved, ["nll"])["nll"]
    assert (same.p, same.better, same.interval, same.needed) == (1.0, None, None, None)
    twins = [each.with_logits(2 * one[0].tensors().logits) for each in one]
    level = fedlas.compare(
        [each.with_logits(one[0].tensors().logits) for each in one], twins, ["nll"]
    )
    assert (level["nll"].p_value, level["nll"].better) == (None, None)
    assert "no spread" in level["nll"].reason


def test_files_pair_by_the_numbers_in_their_names(files, seeds, capsys):
    assert main(["compare", *LISTS, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    expected = fedlas.compare(*seeds)
    assert shown["nll"]["p"] == expected["nll"].p
    assert shown["nll"]["values"] == [list(each) for each in expected["nll"].values]
    assert shown["ece"]["unit"] == "seeds"
    # a shell may have expanded the patterns, in the order of text: s11, s2, s7
    names = [sorted(path.name for path in files.glob(name)) for name in (LISTS[0], LISTS[2])]
    assert main(["compare", *names[0], "--with", *names[1], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == shown


def test_methods_and_seeds_may_be_folders(seeds, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for loss, predictions in zip(("ls", "ce"), seeds, strict=True):
        for seed, each in enumerate(predictions):
            (tmp_path / loss / f"seed-{seed}").mkdir(parents=True)
            each.save(tmp_path / loss / f"seed-{seed}" / "test.npz")
    words = ["ls/seed-*/test.npz", "--with", "ce/seed-*/test.npz", "--metrics", "nll"]
    assert main(["compare", *words, "--markdown"]) == 0
    shown = capsys.readouterr().out
    assert "ls/seed-*/test.npz has lower NLL than ce/seed-*/test.npz" in shown


def test_the_table_over_seeds(files, capsys):
    assert main(["compare", *LISTS]) == 0
    shown = capsys.readouterr().out
    assert "cifar10-ls-s*.npz has lower NLL than" in " ".join(shown.split())
    assert "paired t-test over seeds" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert main(["compare", *LISTS, "--markdown", "--title", "Mine"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"\| metric +\| seeds \| +A \| +B \| +difference, 95 % \| +t \|", shown)
    assert "Mine" in shown
    assert main(["compare", *LISTS, "--latex"]) == 0
    shown = capsys.readouterr().out
    assert r"\caption{A: ls, B: ce4; A - B over 3 seeds, 400 samples of cifar10. " in shown
    assert r"\label{tab:compare-ls-ce4}" in shown
    assert main(["compare", *LISTS, "--metrics", "nll", "--fail-if-worse", "ece", "--strict"]) in (
        0,
        4,
    )
    assert main(["compare", LISTS[2], "--with", LISTS[0], "--fail-if-worse", "nll"]) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cifar10-ls-s2.npz", *LISTS[1:]], "at least two files per method, one per seed; got one"),
        (["cifar10-*.npz", *LISTS[1:]], "must differ only in numbers; got cifar10-ce4-s11.npz"),
        (["cifar10-ls-s[27].npz", *LISTS[1:]], "cifar10-ls-s*.npz has 2, 7 and cifar10-ce4-s*.npz has 2, 7, 11"),
        ([*LISTS[:2], LISTS[0]], "must not share a file"),
        (["cifar10-ls-s2.npz", *LISTS], "each seed must have exactly one file"),
        (["none-*.npz", *LISTS[1:]], "none-*.npz"),
        ([*LISTS, "--replicates", "99"], "--replicates can only be used with folders of benches or two files"),
        ([*LISTS, "--clusters", "c"], "--clusters can only be used with two files; got lists of seeds"),
        ([*LISTS, "--groups", "c"], "--groups can only be used with two files; got lists of seeds"),
        ([*LISTS, "--stage", "auto"], "--stage can only be used with folders of benches; got lists of seeds"),
        ([".", "a:b", "--with", "x.npz"], "--with can only be used with lists of seeds; got folders of benches"),
    ],
)  # fmt: skip
def test_files_that_do_not_pair_are_refused(files, words, message, capsys):
    assert main(["compare", *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_rows_of_weight_0_are_named(files, seeds, capsys):
    """Two files had the note, lists did not."""
    weights = torch.ones(400).index_fill(0, torch.arange(150), 0.0)
    for loss, predictions in zip(("ls", "ce4"), seeds, strict=True):
        for seed, each in zip((2, 7, 11), predictions, strict=True):
            weighted = Predictions(each.tensors().logits, each.tensors().target, weights=weights)
            weighted.save(f"cifar10-{loss}-s{seed}.npz")
    assert main(["compare", *LISTS, "--metrics", "nll"]) == 0
    shown = capsys.readouterr()
    assert "250 samples" in shown.out
    assert " ".join(shown.err.split()).count("150 rows of weight 0 are ignored.") == 1


def test_another_test_set_is_refused(files, capsys):
    trained(1.0, 5, samples=300).save(files / "cifar10-ce4-s11.npz")
    assert main(["compare", *LISTS]) == 2
    expected = "seed 3 of a and seed 3 of b must be predictions for the same samples"
    assert expected in " ".join(capsys.readouterr().err.split())


@pytest.fixture
def folds(seeds):
    """The same predictions where seed ``k`` tests samples of its own."""
    parts = (slice(0, 130), slice(130, 260), slice(260, 400))
    return tuple(
        [each.rows(torch.arange(400)[part]) for each, part in zip(side, parts, strict=True)]
        for side in seeds
    )


def test_seeds_with_own_splits_are_asked_about_overlap(folds):
    with pytest.raises(
        InputError, match=r"test_share= is required.*seeds 1 and 2 of a with different"
    ):
        fedlas.compare(*folds)
    with pytest.raises(InputError, match="test_share is for lists of seeds"):
        fedlas.compare(folds[0][0], folds[1][0], test_share=0.2)
    with pytest.raises(InputError, match=r"test_share must be a finite number in \[0, 1\)"):
        fedlas.compare(*folds, test_share=1.0)


def test_overlapping_splits_take_corrected_variance(folds):
    new = fedlas.compare(*folds, ["nll"], test_share=0.0)["nll"]
    found = fedlas.compare(*folds, ["nll"], test_share=1 / 3)
    each = found["nll"]
    gaps = [METRICS["nll"].value(a) - METRICS["nll"].value(b) for a, b in zip(*folds, strict=True)]
    assert each.gaps == gaps
    # 1/3 + (1/3) / (2/3) in place of 1/3: the interval is sqrt(2.5) times as wide
    assert each.high - each.low == pytest.approx(math.sqrt(2.5) * (new.high - new.low))
    statistic = abs(mean(gaps)) / (stdev(gaps) * math.sqrt(1 / 3 + 1 / 2))
    assert each.p_value == pytest.approx(2 * student.sf(statistic, 2))
    assert new.p_value == paired_t_test(*each.values).p_value
    assert (each.test_share, each.needed, found.samples) == (1 / 3, None, 130)


def test_command_names_corrected_test_of_splits(folds, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for loss, side in zip(("ls", "ce"), folds, strict=True):
        for fold, each in enumerate(side):
            each.save(f"{loss}-{fold}.npz")
    words = ["compare", "ls-*.npz", "--with", "ce-*.npz", "--metrics", "nll"]
    assert main(words) == 2
    assert "--test-share is required" in capsys.readouterr().err
    assert main([*words, "--test-share", "0.25"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "overlapping training parts (Nadeau and Bengio, each tests a share of 0.25)" in shown
    assert "130 samples or more each" in shown
