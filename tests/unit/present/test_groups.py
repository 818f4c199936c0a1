"""Tables and sentences about groups of samples, and differences between models: each says what its numbers say."""

import json
import math
from dataclasses import replace

import pytest

from fedlas.binary.groups import GroupMeasures
from fedlas.present import differences as shown
from fedlas.present.groups import (
    acceptance_sentence,
    event_groups_table,
    groups_table,
    groups_to_dict,
    pooled_table,
    thresholds_table,
    worst_event_group_sentence,
    worst_group_sentence,
)
from fedlas.present.table import DASH, blocks_to_text, table_to_csv
from fedlas.stats import Difference, Estimate
from fedlas.stats.estimates_by_group import GroupEstimate

FLAT = Estimate(1.0, 0.9, 1.1)


def of_event(ratio, p, *, slope=None, samples=100):
    estimate = Estimate(ratio, ratio - 0.1, ratio + 0.1)
    return GroupMeasures(samples, 20, 0.2 / ratio, 0.2, estimate, slope, FLAT, slope, FLAT, p)


def steep(p):
    return Estimate(0.4, 0.2, 0.6, p=p)


def of_top(ece, floor, p, *, confidence=0.9, accuracy=0.8):
    estimate = Estimate(ece, ece / 2, 2 * ece, floor=floor, p=p)
    accuracy = Estimate(accuracy, accuracy - 0.05, accuracy + 0.05)
    return GroupEstimate(50, confidence, accuracy, estimate, p)


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        ({"a": of_event(1.5, 0.001)}, "'a' is under-predicted most clearly"),
        ({"a": of_event(0.5, 0.001)}, "'a' is over-predicted most clearly"),
        ({"a": of_event(1.5, 0.2)}, "none is shown to be miscalibrated; the most evidence is against 'a'"),
        ({"a": of_event(1.5, None)}, "none was tested, because each has a single cluster"),
        ({"a": of_event(1.5, 0.001), "b": of_event(1.4, 0.01)}, "1 more is miscalibrated."),
        ({n: of_event(1.5, 0.001) for n in "abc"}, "2 more are miscalibrated."),
        ({"a": of_event(1.5, 0.2, slope=steep(0.01)), "b": of_event(1.5, 0.3)},
         "in none are the events shown to differ; the most evidence is against 'a'"),
        ({n: of_event(1.5, 0.2, slope=steep(0.01)) for n in "abc"},
         "The slope of 'a' is 0.40 [0.20, 0.60], p = 0.03 after Holm's correction for 3 slopes; 2 more are not 1."),
        ({"a": of_event(1.5, 0.2, slope=steep(0.03)), "b": of_event(1.5, 0.2, slope=steep(0.03))},
         "none is shown to be miscalibrated"),
    ],
)  # fmt: skip
def test_sentence_on_groups_of_an_event(groups, sentence):
    assert sentence in worst_event_group_sentence(groups, "death")


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        ({"a": of_top(0.1, 0.02, 0.001)}, "'a' is calibrated worst, overconfident, ECE 10.00 %"),
        ({"a": of_top(0.1, 0.02, 0.001, confidence=0.7)}, "underconfident"),
        ({"a": of_top(0.1, 0.02, 0.3)}, "none is shown to be miscalibrated; furthest from its floor is 'a'"),
        ({"a": of_top(0.1, None, None)}, "'a' has the largest ECE, 10.00 %; none was tested."),
        ({n: of_top(0.1, 0.02, 0.001) for n in "abc"}, "2 more are miscalibrated."),
    ],
)  # fmt: skip
def test_sentence_on_groups_of_the_predicted_class(groups, sentence):
    assert sentence in worst_group_sentence(groups)


def test_event_table_shows_at_most_requested_groups():
    groups = {f"g{i}": of_event(1.2, 0.5, slope=None if i else FLAT) for i in range(5)}
    table = event_groups_table(groups, title="T", max_rows=2)
    assert [row[0].value for row in table.rows] == ["g0", "g1"]
    assert "3 further groups" in table.notes[0]
    assert [row[7].value for row in table.rows] == ["1.00", DASH]
    assert "further" not in " ".join(event_groups_table(groups, title="T").notes)
    assert max(map(len, blocks_to_text([table]).split("\n"))) <= 80


def test_top_label_table_starts_with_all_samples():
    groups = {f"g{i}": of_top(0.1, 0.02 if i else None, 0.5) for i in range(3)}
    table = groups_table(groups, title="T", all_samples=of_top(0.05, 0.01, 0.9), max_rows=2)
    assert [row[0].value for row in table.rows] == ["all samples", "g0", "g1"]
    assert [row[5].value for row in table.rows] == ["1.00", DASH, "2.00"]
    assert table_to_csv(table).split("\n")[1].startswith("all samples,50,0.8,0.9,0.05,0.01,0.9")


def test_long_group_name_is_truncated_with_tooltip():
    long = "x" * 200
    cell = pooled_table({long: of_event(1.2, 0.5)}, title="T").rows[0][0]
    assert len(cell.value) < 60
    assert (cell.value[-1], cell.tip) == ("…", long)


def test_pooled_slope_is_shown_beside_the_groups_own():
    groups = {"a": of_event(1.2, 0.5, slope=FLAT), "b": of_event(1.2, 0.5)}
    first, second = pooled_table(groups, title="T").rows
    assert [cell.value for cell in first] == ["a", "1.00", "1.00", "1.00"]
    assert [cell.value for cell in second] == ["b", DASH, DASH, "1.00"]


def test_groups_json_omits_unknown_values():
    event = groups_to_dict({"a": of_event(1.2, None)})
    top = groups_to_dict({1: of_top(0.1, None, None)})
    assert json.loads(json.dumps([event, top])) == [event, top]
    assert "p" not in event["a"]
    assert "slope" not in event["a"]
    assert top["1"]["ece"]["value"] == 0.1


def threshold(risk, value, *, share=0.04):
    val = {"coverage": 0.5, "wrong": 2, "accepted": 100}
    test = {"coverage": 0.25, "risk": share, "upper": 0.06}
    return {"risk": risk, "threshold": value, "needed": 1000, "val": val, "test": test}


def test_thresholds_say_what_none_needs():
    rows = [threshold(0.01, None), threshold(0.05, 0.9), threshold(0.1, 0.8, share=None)]
    table = thresholds_table({"thresholds": rows})
    assert [[cell.value for cell in row[:2]] for row in table.rows] == [
        ["1", "none"],
        ["5", "0.9000"],
        ["10", "0.8000"],
    ]
    assert table.rows[1][3].value == "2 of 100"
    assert table.rows[2][5].value == DASH
    assert "1 % needs 1,000" in table.notes[0]
    assert acceptance_sentence({"thresholds": rows}).startswith(
        "For an error rate of 5 %, accept predictions with"
    )
    assert "Even" not in " ".join(thresholds_table({"thresholds": rows[1:]}).notes)


def over_samples(metric="nll", a=1.0, b=1.2, *, p=0.001, better="a"):
    return Difference(metric, a, b, a - b - 0.1, a - b + 0.1, p, p, better, count=500)


def over_seeds(values=((1.0, 1.1, 1.2), (1.3, 1.5, 1.4)), p=0.004):
    a, b = (sum(each) / len(each) for each in values)
    low, high = (math.nan, math.nan) if p is None else (-0.5, -0.1)
    names = ("fedlas", "ls")
    return Difference("nll", a, b, low, high, p, p, None, "seeds", 3, names=names, values=values)


def test_differences_over_samples_have_a_row_each():
    table = shown.differences_table([over_samples(), over_samples("accuracy", 0.9, 0.8)], title="T")
    assert [cell.value for cell in table.rows[0][1:4]] == ["1.0000", "1.2000", "-0.2000"]
    assert [cell.value for cell in table.rows[1][1:4]] == ["90.00", "80.00", "+10.00"]
    assert table.rows[0][5].value == "0.001"


def test_differences_over_seeds_name_the_pair():
    table = shown.differences_table([over_seeds(), over_seeds(p=None)], title="T", row_label="pair")
    first, second = ([cell.value for cell in row] for row in table.rows)
    assert first[:4] == ["fedlas - ls", "3", "1.1000", "1.4000"]
    assert "[-0.5000, -0.1000]" in first[4]
    assert "[" not in second[4]
    assert second[5:7] == [DASH, DASH]


@pytest.mark.parametrize(
    ("differences", "sentences"),
    [
        ([over_samples()], ["A is better than B in NLL by 0.2000 (p = 0.001)."]),
        ([over_samples(better="b")], ["B is better than A in NLL by 0.2000 (p = 0.001)."]),
        ([over_samples(better=None, p=0.3)], ["A and B are not distinguishable in NLL."]),
        ([over_samples(), over_samples("accuracy", better=None, p=0.9)],
         ["A is better than B in NLL by 0.2000 (p = 0.001).", "Not distinguishable: Accuracy."]),
        ([replace(over_samples(better=None, p=0.06), p_value=0.03)],
         ["A and B are not distinguishable in NLL (p = 0.03 alone, p = 0.06 after Holm's correction)."]),
    ],
)  # fmt: skip
def test_sentences_on_two_models(differences, sentences):
    assert [line.casefold() for line in shown.comparison_sentences(differences, ("A", "B"))] == [
        line.casefold() for line in sentences
    ]


def test_a_slope_that_differs_is_no_tie():
    slope = over_samples("slope", 1.0, 0.7, better=None)
    (line,) = shown.comparison_sentences([slope], ("A", "B"), event="death")
    assert line.startswith("They differ in")


@pytest.mark.parametrize(
    ("difference", "sentence"),
    [
        (over_seeds(), "fedlas has lower NLL than ls, by 0.3000 (p = 0.004, 3 seeds)."),
        (over_seeds(p=0.0004), "(p < 0.001, 3 seeds)."),
        (over_seeds(p=0.4), "No significant difference in NLL between fedlas and ls over 3 seeds."),
        (over_seeds(p=None), "the difference of 0.3000 cannot be tested (3 seeds, no spread)."),
    ],
)  # fmt: skip
def test_sentence_on_two_methods(difference, sentence):
    assert sentence in shown.difference_sentence(difference)


@pytest.mark.parametrize(
    ("value", "text"), [(0.1, "+0.1000"), (-0.1, "-0.1000"), (-0.00001, "+0.0000"), (math.nan, DASH)]
)  # fmt: skip
def test_a_difference_has_its_sign(value, text):
    assert shown.format_signed(shown.metric_column("nll"), value) == text
