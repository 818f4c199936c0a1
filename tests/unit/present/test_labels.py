"""What a report of several labels says, shows and requires."""

import json

import pytest
import torch

import fedlas
from fedlas import MultiLabel
from fedlas.binary import label_measures
from fedlas.calibrators import MultiLabelCalibration
from fedlas.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")
NAMES = tuple(f"finding_{letter}" for letter in "abcdefgh")


def drawn(seed=0, samples=600, **roles):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, len(NAMES), generator=random) - 1
    slopes = torch.linspace(0.3, 1.0, len(NAMES))
    target = torch.bernoulli((slopes * logits).sigmoid(), generator=random).long()
    return MultiLabel(logits, target, names=NAMES, **roles)


@pytest.fixture(scope="module")
def evaluation():
    return fedlas.report(drawn(), on=drawn(1), replicates=99)


def test_a_line_a_label_and_means_by_name(evaluation):
    assert type(evaluation).__name__ == "LabelEvaluation"
    text = evaluation.text()
    assert "macro ECE" in text
    assert "micro NLL" in text
    assert "worst label's ECE" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    first = next(iter(evaluation.labels["as predicted"]))
    assert f"most clearly {first!r}" in evaluation.verdict[0]
    assert "After partial-pooling: macro ECE" in evaluation.verdict[1]
    details = evaluation.text(details=True)
    assert all(name in details for name in NAMES)


def test_what_is_shown_after_is_what_calibrate_deploys(evaluation):
    deployed = MultiLabelCalibration().fit(drawn(1)).transform(drawn())
    assert torch.equal(
        evaluation.stages["after partial-pooling"].tensors().logits, deployed.tensors().logits
    )
    model = torch.nn.Identity()
    val = drawn(1)
    calibrated = fedlas.calibrate(
        model, [(val.tensors().logits, val.tensors().target)], MultiLabelCalibration()
    )
    torch.testing.assert_close(
        calibrated(drawn().tensors().logits), deployed.tensors().logits, rtol=1e-4, atol=1e-5
    )


def test_rules_on_means_and_on_the_worst_label(evaluation):
    raw = fedlas.report(drawn(), replicates=99)
    gate = raw.require("macro_ece<=0.03", "worst_label_ece<=5%", "macro_auroc>=0.5", "calibrated")
    assert [check.outcome for check in gate.checks] == ["fails", "fails", "holds", "fails"]
    assert gate.status == 3
    assert evaluation.require("macro_ece<=0.2", "calibrated").status == 0
    for rule, said in (("ece<=0.1", "metric of a rule must be"), ("macro_auroc<=0.9", "lower bound")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            raw.require(rule)


def test_numbers_for_machines_pages_and_papers(evaluation):
    content = json.loads(evaluation.json())
    assert content["labels"]["as predicted"].keys() == set(NAMES)
    assert content["intervals"]["after partial-pooling"]["macro_ece"]["low"] >= 0
    frame = evaluation.to_frame()
    assert set(frame["stage"]) == set(evaluation.stages)
    assert "finding\\_a" in evaluation.to_latex()


def test_a_page_has_curves_of_the_worst_labels(monkeypatch):
    """Drawing is slow: one sample of two labels is drawn, and the worst of many are counted."""
    pairs = [
        MultiLabel(each.tensors().logits[:, :2], each.tensors().target[:, :2])
        for each in (drawn(), drawn(1))
    ]
    evaluation = fedlas.report(pairs[0], on=pairs[1], replicates=99)
    page = evaluation.html()
    assert page.count('aria-label="Reliability diagram of') == 4
    assert "macro: mean over labels" in page
    monkeypatch.setattr("fedlas.plots.labels.positive_reliability_diagram", lambda *_, **__: None)
    assert len(fedlas.report(drawn(), replicates=0)._draw_worst_labels()) == 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"event": 1}, "event requires one label"),
        ({"groups": ["a"] * 599}, "one per sample"),
        ({"reject": [0.05]}, "reject requires one label"),
        ({"cost_ratio": 9.0}, "cost_ratio requires one label"),
        ({"top_label": True}, "top_label requires one label"),
        ({"heterogeneity": True}, "heterogeneity requires one label"),
        ({"method": "auto"}, "requires held-out"),
        ({"on": drawn()}, "must differ from the predictions"),
        ({"on": drawn().label(0)}, "must be a MultiLabel if"),
        (
            {
                "on": MultiLabel(
                    drawn(1).tensors().logits, drawn(1).tensors().target, names=tuple("abcdefgh")
                )
            },
            "same labels as the predictions",
        ),
        ({"on": drawn(1), "method": "all"}, "method"),
    ],
)
def test_what_is_for_one_label_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        fedlas.report(drawn(), **options)


def test_roles_of_samples_are_used():
    plain = fedlas.report(drawn(), replicates=99)
    for name, value in (
        ("weights", torch.arange(600) % 4),
        ("clusters", torch.arange(600) // 10),
    ):
        other = fedlas.report(drawn(**{name: value}), replicates=99)
        macro = [each.estimates["as predicted"]["macro_nll"] for each in (plain, other)]
        assert (macro[0].low, macro[0].high) != (macro[1].low, macro[1].high), name
        fitted = fedlas.report(drawn(), on=drawn(1, **{name: value}), replicates=0)
        whole = fedlas.report(drawn(), on=drawn(1), replicates=0)
        assert fitted.measured["after partial-pooling"] != whole.measured["after partial-pooling"]


def with_groups(**roles):
    """Three groups, of which the last expects too few of one label."""
    several = drawn(**roles)
    logits = several.tensors().logits.clone()
    logits[400:, 7] -= 2
    several = MultiLabel(logits, several.tensors().target, names=NAMES, **roles)
    return several, ["here"] * 200 + ["there"] * 200 + ["far"] * 200


def test_group_rows_have_all_and_worst_label():
    several, groups = with_groups()
    evaluation = fedlas.report(several, groups=groups, on=drawn(1), replicates=99)
    table = evaluation.groups["as predicted"]
    first, far = next(iter(table.items()))
    assert (first, far.worst_label, far.num_samples) == ("far", "finding_h", 200)
    rows = several.rows(torch.arange(400, 600))
    alone = label_measures(rows, replicates=99)
    assert far.worst == next(iter(alone.values()))
    assert far.macro_ece == alone.overall["macro_ece"]
    assert far.positives == int(rows.tensors().target.sum())
    assert far.ratio.value == pytest.approx(
        float(rows.tensors().target.sum() / rows.tensors().probs.sum()), rel=1e-5
    )
    assert far.ratio.low < far.ratio.value < far.ratio.high
    assert far.p <= min(1.0, 3 * 2 * min(far.ratio.p, far.worst.p)) * (1 + 1e-9)
    assert evaluation.verdict[2].startswith("Groups, as predicted: ")
    assert "'far': O/E" in evaluation.verdict[2]
    assert all(len(line) <= 80 for line in evaluation.text(details=True).splitlines())
    assert {"Groups, as predicted", "Groups, after partial-pooling"} <= set(
        evaluation.text().split("\n")
    )
    content = json.loads(evaluation.json())["groups"]["after partial-pooling"]
    assert content.keys() == {"here", "there", "far"}
    assert content["far"]["worst"]["ratio"]["value"] > 0


def test_groups_use_clusters_weights_and_what_is_unknown():
    several, groups = with_groups()
    options = {"groups": groups, "replicates": 0}
    plain = fedlas.report(several, **options).groups["as predicted"]["far"]
    clustered = fedlas.report(with_groups(clusters=torch.arange(600) // 10)[0], **options)
    ratio = clustered.groups["as predicted"]["far"].ratio
    assert ratio.value == pytest.approx(plain.ratio.value)
    assert (ratio.low, ratio.high) != (plain.ratio.low, plain.ratio.high)
    weights = torch.ones(600)
    weights[590:] = 0
    target = several.tensors().target.clone()
    target[590:] = -100
    unknown = MultiLabel(several.tensors().logits, target, names=NAMES)
    both = [
        fedlas.report(each, **options).groups["as predicted"]["far"]
        for each in (with_groups(weights=weights)[0], unknown)
    ]
    assert both[0].num_samples == both[1].num_samples == 190
    assert both[0].positives == both[1].positives == int(several.tensors().target[400:590].sum())
    assert both[0].macro_ece.value == pytest.approx(both[1].macro_ece.value)
    target[400:] = -100
    left = MultiLabel(several.tensors().logits, target, names=NAMES)
    assert set(fedlas.report(left, **options).groups["as predicted"]) == {"here", "there"}
