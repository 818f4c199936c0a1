"""Self-consistency: several answers to a question, of which the most frequent one counts."""

import json

import numpy as np
import pytest

import fedlas
from fedlas.errors import InputError
from fedlas.predictions import normalize_answer, one_per_cluster, self_consistency

ANSWERS = {
    "q1": (["Paris", "the answer is Paris.", "Lyon", "PARIS!"], "Paris"),
    "q2": (["18", "$18.00", "#### 18", "17"], "So 6 * 3 = 18. #### 18"),
    "q3": (["red", "blue", "blue", "red"], "blue"),
    "q4": (["", "7", "8", "8"], "9"),
}


def rows_of(answers):
    return [
        {
            "q": question,
            "answer": answer,
            "truth": truth,
            "right": normalize_answer(answer) == normalize_answer(truth),
        }
        for question, (several, truth) in answers.items()
        for answer in several
    ]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("The capital is big. The answer is Paris. Confidence: 90 %", "paris"),
        (r"thus \boxed{\frac{1}{2}} holds", r"\frac{1}{2}"),
        ("1,000.0", "1000"),
        ("-5", "-5"),
        ("3/4", "3/4"),
        ("(A)", "a"),
        ("the  Eiffel Tower!", "eiffel tower"),
        ("def f(a):\n    return a - 1", "def f(a): return a - 1"),
        ("nan", "nan"),
        (None, ""),
        (18.0, "18"),
    ],
)
def test_equal_answers_have_one_form(text, key):
    assert normalize_answer(text) == key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A, B", "B"), ("A B", "B"), ("A and B", "and B"), ("B, A", "B"), ("Hepatitis A", "Hepatitis"),
        ("Hepatitis A virus", "Hepatitis virus"), ("vitamin a", "vitamin"), ("A/B", "B"), ("A", ""), ("An", "A"),
        ("5", "\N{MINUS SIGN}5"), ("Plan A is right", "Plan is right"),
    ],
)  # fmt: skip
def test_letter_is_no_article(one, other):
    """ "A, B" was "B", and "Hepatitis A" the majority with "Hepatitis"."""
    assert normalize_answer(one) != normalize_answer(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A dog", "dog"), ("a  dog.", "Dog"), ("an apple", "The apple"), ("bank of the river", "bank of river"),
        ("(A)", "a"), ("A.", "a"), ("a, b", "A B"), ("hepatitis a", "Hepatitis A"), ("\N{MINUS SIGN}5", "-5.0"),
        ("\N{MINUS SIGN}1,000", "-1000"), ("1990\N{EN DASH}95", "1990-95"),
        ("Alzheimer\N{RIGHT SINGLE QUOTATION MARK}s", "Alzheimer's"),
    ],
)  # fmt: skip
def test_article_and_typography_make_no_difference(one, other):
    assert normalize_answer(one) == normalize_answer(other)


def test_majority_wins_and_ties_go_to_first():
    votes = self_consistency([several for several, _ in ANSWERS.values()])
    assert votes.confidence.tolist() == [0.75, 0.75, 0.5, 0.5]
    assert votes.answer == ("Paris", "18", "red", "8")
    assert votes.tied.tolist() == [False, False, True, False]
    assert votes.matches([truth for _, truth in ANSWERS.values()]).tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert votes.matches([["Lyon", "Paris"], "18", "red", "x"]).tolist() == [
        True,
        True,
        True,
        False,
    ]
    for wrong in ([], ["a"], [["a"], ["b"]], [[]], "ab"):
        with pytest.raises(InputError, match=r"self_consistency|answers"):
            self_consistency(wrong)


@pytest.mark.parametrize("outcome", [{"target": "truth"}, {"correct": "right"}])
def test_a_table_of_answers_is_one_of_questions(outcome):
    frame = {
        name: [row[name] for row in rows_of(ANSWERS)] for name in ("q", "answer", "truth", "right")
    }
    frame["answer"][12] = None
    options = {"confidence": "answer", "confidence_as": "vote", "clusters": "q"}
    table = fedlas.read_predictions(frame, **options, **outcome, groups="q")
    assert table.predictions.confidence.tolist() == [0.75, 0.75, 0.5, 0.5]
    assert table.predictions.correct.tolist() == [True, True, False, False]
    assert table.predictions.clusters is None
    assert table.groups == ("q1", "q2", "q3", "q4")
    assert any("1 of 4 questions have a tie" in note for note in table.notes)


def test_what_votes_cannot_mean_is_refused():
    frame = {
        "q": ["a", "a", "b"],
        "answer": ["x", "x", "y"],
        "truth": ["x", "z", "y"],
        "ok": [1, 0, 1],
    }
    options = {"confidence": "answer", "confidence_as": "vote"}
    with pytest.raises(InputError, match="no clusters"):
        fedlas.read_predictions(frame, **options, target="truth")
    with pytest.raises(InputError, match="the same value in all rows of a question"):
        fedlas.read_predictions(frame, **options, clusters="q", target="truth")
    with pytest.raises(InputError, match="all correct or all wrong"):
        fedlas.read_predictions(frame, **options, clusters="q", correct="ok")
    with pytest.raises(InputError, match="all correct or all wrong"):
        fedlas.calibrate(frame, **options, clusters="q", correct="ok")


def test_a_file_of_votes_is_measured(tmp_path):
    lines = [json.dumps(row) for row in rows_of(ANSWERS)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    columns = {"confidence": "answer", "confidence_as": "vote", "clusters": "q", "target": "truth"}
    table = fedlas.read_predictions(tmp_path / "a.jsonl", **columns)
    assert fedlas.evaluate(table)["accuracy"] == 0.5
    assert "share of the 4 answers" in " ".join(table.notes)


def test_repeats_of_the_harness_are_votes(tmp_path):
    samples = [
        {
            "doc_id": number,
            "target": f"6 * 3 = 18 #### {target}",
            "resps": [[f"I think so. #### {each}" for each in answers]],
            "filtered_resps": [str(answers[0])],
            "filter": "take-first",
            "exact_match": float(answers[0] == target),
        }
        for number, (answers, target) in enumerate([([17, 18, 18], 18), ([4, 4, 5], 5)])
    ]
    path = tmp_path / "samples_gsm8k.jsonl"
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    table = fedlas.read_predictions(path, confidence_as="vote")
    assert table.predictions.confidence.round(3).tolist() == [0.667, 0.667]
    assert table.predictions.correct.tolist() == [True, False]


def test_one_row_of_each_cluster_is_kept(tmp_path):
    draw = np.random.default_rng(0)
    code = np.repeat(np.arange(200), 3)
    confidence = draw.uniform(0.5, 1, 600)
    frame = {"c": confidence, "ok": draw.random(600) < confidence, "q": [f"q{n}" for n in code]}
    table = fedlas.read_predictions(
        frame, confidence="c", correct="ok", clusters="q", one_per_cluster=True
    )
    alone = fedlas.TopLabel(confidence[::3], frame["ok"][::3])
    assert table.predictions.clusters is None
    assert table.predictions.confidence.tolist() == alone.confidence.tolist()
    assert "Only the first row of each cluster is used: 200 of 600 rows." in table.notes
    several = fedlas.TopLabel(confidence, frame["ok"], clusters=code)
    assert one_per_cluster(several).correct.tolist() == alone.correct.tolist()
    with pytest.raises(InputError, match="column of clusters"):
        fedlas.read_predictions(frame, confidence="c", correct="ok", one_per_cluster=True)
    with pytest.raises(InputError, match="must have clusters"):
        one_per_cluster(alone)
    rows = [f"{c},{int(ok)},{q}" for c, ok, q in zip(*frame.values(), strict=True)]
    (tmp_path / "a.csv").write_text("\n".join(["c,ok,q", *rows]) + "\n")
    columns = {"confidence": "c", "correct": "ok", "clusters": "q", "one_per_cluster": True}
    of_file = fedlas.read_predictions(tmp_path / "a.csv", **columns)
    assert of_file.predictions.correct.tolist() == alone.correct.tolist()
