"""Each command is about the class that the user means, whatever the order, the labels and the number of columns."""

import json

import numpy as np
import pandas as pd
import pytest

import fedlas
from fedlas.cli import main
from fedlas.errors import InputError

LABELS = {  # the event, and the other class
    "yes": ("yes", "no"),
    "true": ("true", "false"),
    "numbers": ("1", "0"),
    "positive": ("positive", "negative"),
    "words": ("left", "stayed"),
}


@pytest.fixture(scope="module")
def chances():
    random = np.random.default_rng(0)
    logit = 1.2 * random.normal(size=400) - 2
    return 1 / (1 + np.exp(-logit)), random.random(400)


def write(folder, chances, words, *, order, columns, factor=2.0):
    """Write validation and test scores of a model that is too extreme; return the options that name the columns."""
    event, other = words
    p, uniform = chances
    logit = np.log(p / (1 - p))
    scores = 1 / (1 + np.exp(-factor * logit))
    frame = {f"p_{event}": scores.round(6), f"p_{other}": (1 - scores).round(6)}
    names = [f"p_{event}", f"p_{other}"]
    names = names[::-1] if order == "event last" else names
    if columns != "two":
        names = [f"p_{event}" if columns == "of the event" else f"p_{other}"]
    frame = pd.DataFrame({name: frame[name] for name in names})
    frame["y"] = np.where(uniform < p, event, other)
    frame[:200].to_csv(folder / "val.csv", index=False)
    frame[200:].to_csv(folder / "test.csv", index=False)
    return ["--probs", ",".join(names), "--target", "y"]


FORMS = (
    ("event last", "two"),
    ("event first", "two"),
    ("", "of the event"),
    ("", "of the other"),
)
QUICK = {("yes", FORMS[1], False), ("numbers", FORMS[2], False), ("true", FORMS[3], True)}
QUICK |= {("words", form, named) for form, named in zip(FORMS, (False, True) * 2, strict=True)}
CELLS = [
    pytest.param(
        labels, *form, named, marks=() if (labels, form, named) in QUICK else pytest.mark.long
    )
    for labels in LABELS
    for form in FORMS
    for named in (False, True)
]


@pytest.mark.parametrize(("labels", "order", "columns", "named"), CELLS)
def test_the_matrix(tmp_path, monkeypatch, capsys, chances, labels, order, columns, named):
    monkeypatch.chdir(tmp_path)
    words = LABELS[labels]
    p, uniform = chances
    events = int((uniform[200:] < p[200:]).sum())
    options = write(tmp_path, chances, words, order=order, columns=columns)
    if labels == "numbers" and order == "event first":  # numbered columns have an order
        assert main(["evaluate", "test.csv", *options]) == 2
        return
    if named:
        options += ["--event", words[0]]
    # Words of which neither affirms what the other denies: the last is the event, and a note says so.
    last = words[1] if order == "event first" or columns == "of the other" else words[0]
    event = words[0] if named or labels != "words" else last
    count = events if event == words[0] else 200 - events
    name = f"'{event}'"

    assert main(["evaluate", "test.csv", *options, "--replicates", "0", "--json"]) == 0
    said = capsys.readouterr()
    content = json.loads(said.out)
    observed = content["positive class"]["as predicted"]["observed"]["value"]
    assert observed == pytest.approx(count / 200)
    assert name in content["verdict"][0]
    assert "class " not in content["verdict"][0]
    if not named and columns == "two":
        assert f"The event is '{event}'" in said.err

    gate = ["--replicates", "39", "--require", "slope<=9"]
    assert main(["evaluate", "test.csv", *options, *gate]) == 0
    assert f"of '{event}'" in " ".join(capsys.readouterr().out.split())

    halved = pd.read_csv("test.csv", dtype={"y": str})
    scores = halved[options[1].split(",")[0]] / 2
    halved = halved.assign(**dict(zip(options[1].split(","), (scores, 1 - scores), strict=False)))
    halved.to_csv("other.csv", index=False)
    both = ["compare", "test.csv", "other.csv", *options, "--replicates", "39"]
    assert main(both) == 0
    assert f"The event is {name}" in " ".join(capsys.readouterr().out.split())

    fit = ["calibrate", "val.csv", *options, "--method", "temperature", "--out", "cal.json"]
    assert main(fit) == 0
    assert f"The event '{event}' on" in " ".join(capsys.readouterr().out.split())
    assert main(["apply", "cal.json", "test.csv", "--out", "after.csv"]) == 0
    capsys.readouterr()
    after = pd.read_csv("after.csv")
    before = pd.read_csv("test.csv")
    for column in options[1].split(","):
        assert after[f"calibrated_{column}"].corr(before[column], method="spearman") > 0.99

    cards = ["card", "val.csv", "test.csv", *options, "--replicates", "0", "--out", "card.json"]
    assert main([*cards, "--method", "none"]) == 0
    capsys.readouterr()
    card = json.loads((tmp_path / "card.json").read_text())["event"]
    assert card["name"] == name
    assert card["measures"]["as predicted"]["observed"]["value"] == pytest.approx(count / 200)
    assert main(["monitor", "card.json", "test.csv", *options, "--json"]) == 0
    capsys.readouterr()


def test_words_that_settle_nothing_name_both_classes(tmp_path, chances):
    write(tmp_path, chances, ("active", "left"), order="", columns="of the event")
    table = pd.read_csv(tmp_path / "val.csv").rename(columns={"p_active": "score"})
    with pytest.raises(InputError, match=r"'(active|left)' or '(active|left)'") as error:
        fedlas.read_predictions(table, probs="score", target="y")
    assert "active,left" in str(error.value)
    assert "left,active" in str(error.value)
    read = fedlas.read_predictions(table, probs="score", target="y", event="active")
    assert read.classes == ("left", "active")


@pytest.mark.parametrize("command", ["calibrate", "python"])
def test_reversed_score_column_stops_the_fit(tmp_path, monkeypatch, capsys, chances, command):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, chances, ("1", "0"), order="", columns="of the other")
    table = pd.read_csv("val.csv").rename(columns={"p_0": "score"})
    table.to_csv("val.csv", index=False)
    options = ["--probs", "score", "--target", "y"]
    if command == "python":
        with pytest.raises(InputError, match="looks like the probability of"):
            fedlas.calibrate(table, probs="score", target="y")
        return
    assert main(["calibrate", "val.csv", *options]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "looks like the probability of class 0; --event 0 if that is meant" in shown
    assert main(["calibrate", "val.csv", *options, "--event", "0", "--method", "temperature"]) == 0


def test_column_name_with_class_works_with_classes(tmp_path, monkeypatch, capsys, chances):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, chances, ("left", "active"), order="", columns="of the other")
    pd.read_csv("val.csv").rename(columns={"p_active": "p_left"}).to_csv("val.csv", index=False)
    options = ["--probs", "p_left", "--target", "y"]
    assert main(["calibrate", "val.csv", *options]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "looks like the probability of 'active'; --classes left,active if that is meant" in shown
    advice = ["--classes", "left,active", "--method", "temperature"]
    assert main(["calibrate", "val.csv", *options, *advice]) == 0


def test_different_class_order_is_the_reported_error():
    probs = np.array([[0.2, 0.8], [0.7, 0.3]] * 30)
    one, other = (
        fedlas.Predictions.from_probs(table, ["yes", "no"] * 30, classes=names)
        for table, names in ((probs, ["no", "yes"]), (probs[:, ::-1].copy(), ["yes", "no"]))
    )
    with pytest.raises(InputError, match=r"classes in the same order; got no, yes and yes, no"):
        fedlas.compare(one, other)


def test_two_models_are_compared_about_the_named_event(tmp_path, monkeypatch, capsys, chances):
    monkeypatch.chdir(tmp_path)
    words = ("left", "stayed")
    options = write(tmp_path, chances, words, order="event first", columns="two", factor=3.0)
    (tmp_path / "test.csv").rename("sharp.csv")
    write(tmp_path, chances, words, order="event first", columns="two", factor=1.0)
    gate = ["--fail-if-worse", "ece", "--replicates", "99"]
    for event in words:
        assert main(["compare", "sharp.csv", "test.csv", *options, "--event", event, *gate]) == 3
        assert f"in ECE of '{event}'" in " ".join(capsys.readouterr().out.split())


def test_arrays_name_their_event(chances):
    p, uniform = chances
    target = (uniform < p).astype(int)
    probs = np.stack([1 - p, p], axis=1)
    names = ("stayed", "left")
    for event, number in (("stayed", 0), ("left", 1), (0, 0), (None, 1)):
        labels = [names[label] for label in target]
        predictions = fedlas.Predictions.from_probs(probs, labels, classes=names, event=event)
        share = (target == number).mean()
        measures = fedlas.binary.measures(predictions, replicates=0)
        assert measures["observed"].value == pytest.approx(share)
        evaluation = fedlas.report(predictions, replicates=0)
        assert evaluation.event == repr(names[number])
        plain = fedlas.Predictions.from_probs(probs, target)
        other = fedlas.report(plain, event=event, classes=names, replicates=0)
        assert other.verdict == evaluation.verdict
        assert bool(evaluation.notes) == (event is None)


def test_covariates_that_nothing_reads_are_refused(tmp_path, monkeypatch, capsys, chances):
    monkeypatch.chdir(tmp_path)
    options = write(tmp_path, chances, ("yes", "no"), order="event last", columns="two")
    assert main(["evaluate", "test.csv", *options, "--covariates", "p_no"]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "--covariates" in shown
    assert "Pass --on, or omit --covariates" in shown
    with pytest.raises(InputError, match=r"covariates.*Pass on="):
        fedlas.report(pd.read_csv("test.csv"), probs="p_yes", target="y", covariates="p_no")


def test_verdict_without_replicates_uses_separate_tests(chances):
    p, uniform = chances
    halved = fedlas.Predictions.from_probs(p / 2, (uniform < p).astype(int))
    (sentence, *_) = fedlas.report(halved, replicates=0).verdict
    assert "No calibration test was run" not in sentence
    assert "Miscalibrated by in the large" in sentence
    assert "no joint test was run, because it needs replicates" in sentence
    true = fedlas.Predictions.from_probs(p, (uniform < p).astype(int))
    (sentence, *_) = fedlas.report(true, replicates=0).verdict
    assert "None of 4 tests rejects calibration after Bonferroni" in sentence


@pytest.mark.parametrize("columns", ["two", "of the event"])
def test_monitor_uses_the_event_of_the_card(tmp_path, monkeypatch, capsys, chances, columns):
    """Of numbers, not names, the other event was taken, and an alarm of nothing was raised; or it had no effect."""
    monkeypatch.chdir(tmp_path)
    options = write(tmp_path, chances, ("1", "0"), order="event last", columns=columns)
    if columns != "two":  # a name that does not say which class the column is about
        options[1] = "p"
        for path in tmp_path.glob("*.csv"):
            path.write_text(path.read_text().replace("p_1", "p"))
    for event, other in (("1", "0"), ("0", "1")):
        card = ["card", "val.csv", "test.csv", *options, "--event", event]
        quick = ["--replicates", "0", "--method", "none"]
        assert main([*card, *quick, "--out", f"{event}.json"]) == 0
        watch = ["monitor", f"{event}.json", "test.csv", *options]
        assert main([*watch, "--event", event]) == 0
        capsys.readouterr()
        assert main([*watch, "--event", other]) == 2
        assert "the card" in capsys.readouterr().err
    # A column that the card took for the other class is not read as the last one.
    assert main(watch) == (0 if columns == "two" else 2)


@pytest.fixture
def deaths(tmp_path, monkeypatch, chances):
    """Scores of death in one column, with labels yes and no, of validation and test."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, chances, ("yes", "no"), order="", columns="of the event", factor=1.0)
    for name in ("val.csv", "test.csv"):
        table = pd.read_csv(name).rename(columns={"p_yes": "risk"})
        table.to_csv(name, index=False)
    table.assign(risk=table.risk / 2).to_csv("other.csv", index=False)
    return ["--probs", "risk", "--target", "y"]


COMMANDS = {
    "evaluate": ["evaluate", "test.csv"],
    "evaluate --on": ["evaluate", "test.csv", "--on", "val.csv"],
    "calibrate": ["calibrate", "val.csv"],
    "card": ["card", "val.csv", "test.csv", "--replicates", "0"],
    "compare": ["compare", "test.csv", "other.csv"],
    "monitor": ["monitor", "card.json", "test.csv"],
}


@pytest.mark.parametrize(
    ("command", "event"), [*((command, "alive") for command in COMMANDS), ("calibrate", "1")]
)
def test_event_must_be_a_label(deaths, capsys, command, event):
    if command == "monitor":
        card = ["card", "val.csv", "test.csv", *deaths, "--replicates", "0", "--method", "none"]
        assert main([*card, "--out", "card.json"]) == 0
        capsys.readouterr()
    assert main([*COMMANDS[command], *deaths, "--event", event]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert f"--event must be one of the classes, no or yes; got str '{event}'" in shown


@pytest.mark.parametrize("event", ["alive", 0, 1])
def test_event_must_be_a_label_in_python(deaths, event):
    table = pd.read_csv("test.csv")
    columns = {"probs": "risk", "target": "y", "event": event}
    for function in (fedlas.report, fedlas.read_predictions, fedlas.calibrate):
        with pytest.raises(InputError, match="event must be one of the classes, no or yes"):
            function(table, **columns)
    lists = {"p": [[0.3, 0.7], [0.6, 0.4]], "y": ["yes", "no"]}
    with pytest.raises(InputError, match="event must be one of the classes, no or yes"):
        fedlas.read_predictions(lists, probs="p", target="y", event="alive")
    read = fedlas.read_predictions(lists, probs="p", target="y", event="no")
    assert (read.classes, read.predictions.event) == (("no", "yes"), 0)
    words = table.assign(y=table.y.map({"yes": "dead", "no": "alive"}))
    with pytest.raises(InputError, match="event must be one of the classes, alive or dead"):
        fedlas.read_predictions(words, probs="risk", target="y", event="yes")


@pytest.mark.parametrize("event", [0, "0", 1, "1", "sepsis"])
def test_event_number_is_equal_in_python_and_cli(deaths, capsys, event):
    for name in ("val.csv", "test.csv"):
        table = pd.read_csv(name)
        table.assign(y=(table.y == "yes") * 1).to_csv(name, index=False)
    columns = {"probs": "risk", "target": "y"}
    table = pd.read_csv("test.csv")
    direct = fedlas.report(table, **columns, event=event, replicates=0)
    read = fedlas.read_predictions(table, **columns, event=event)
    assert fedlas.report(read, replicates=0).verdict == direct.verdict
    plain = ["--event", str(event), "--replicates", "0", "--json"]
    assert main(["evaluate", "test.csv", *deaths, *plain]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == direct.verdict
    word = "sepsis" if event == "sepsis" else str(event)
    assert direct.event == repr(word)
    # The card of a named event is watched by its name.
    card = ["card", "val.csv", "test.csv", *deaths, "--replicates", "0", "--method", "none"]
    assert main([*card, "--event", str(event), "--out", "card.json"]) == 0
    assert main(["monitor", "card.json", "test.csv", *deaths, "--event", str(event)]) in (0, 1)


@pytest.mark.parametrize("event", ["no", None])
def test_reversed_scores_are_found_with_named_event(deaths, capsys, event):
    """With --event no the column is said to be about no: its slope of -0.75 became 0.98 without a word."""
    if event is None:
        for name in ("val.csv", "test.csv"):
            table = pd.read_csv(name)
            table.assign(risk=1 - table.risk).to_csv(name, index=False)
    named = [] if event is None else ["--event", event]
    about, other = ("no", "yes") if event else ("yes", "no")
    question = "Ranks the other class higher (AUROC 0.1"
    asked = f"): is risk the probability of '{other}'? Expects '{about}' in "
    quick = ["--replicates", "39"]

    assert main(["calibrate", "val.csv", *deaths, *named]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert f"scores must rank '{about}' above the rest; got AUROC 0." in shown
    fix = f"looks like the probability of '{other}'; --classes {about},{other} if that is meant"
    assert fix in shown
    for command in (
        ["evaluate", "test.csv"],
        ["evaluate", "test.csv", "--on", "val.csv"],
        ["card", "val.csv", "test.csv"],
    ):
        assert main([*command, *deaths, *named, *quick]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert question in shown
        assert asked in shown
        for wrong in ("too extreme", "repairs it", "next:"):
            assert wrong not in shown
    columns = {"probs": "risk", "target": "y", "event": event}
    evaluation = fedlas.report(pd.read_csv("test.csv"), **columns, replicates=0)
    assert asked in evaluation.verdict[0]
    named += ["--classes", f"{about},{other}", "--method", "temperature"]
    assert main(["calibrate", "val.csv", *deaths, *named]) == 0


def test_arrays_about_the_other_class_are_asked_about(chances):
    p, uniform = chances
    target = (uniform < p).astype(int)
    (sentence, *_) = fedlas.report(target, 1 - p, replicates=0).verdict
    assert sentence.startswith("Ranks the other class higher (AUROC 0.")
    assert "are these scores those of class 0? Expects class 1 in" in sentence
    (sentence, *_) = fedlas.report(target, 1 - p, event="death", replicates=0).verdict
    assert "are these scores those of 'not death'?" in sentence


def test_advice_for_numeric_event_works(deaths, capsys):
    table = pd.read_csv("val.csv")
    table.assign(y=(table.y == "no") * 1).to_csv("val.csv", index=False)
    assert main(["calibrate", "val.csv", *deaths, "--event", "sepsis"]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "the probability of 'not sepsis'; --event 0 if that is meant" in shown
    assert main(["calibrate", "val.csv", *deaths, "--event", "0", "--method", "temperature"]) == 0


def test_raw_and_calibrated_predictions_are_told_apart_once(tmp_path, monkeypatch, capsys, chances):
    """The card's first sentence was about the calibrated predictions, the one of evaluate about the raw ones."""
    monkeypatch.chdir(tmp_path)
    options = write(tmp_path, chances, ("yes", "no"), order="", columns="of the event")
    options += ["--replicates", "39"]
    assert main(["evaluate", "test.csv", "--on", "val.csv", *options, "--report", "e.html"]) == 0
    evaluated = " ".join(capsys.readouterr().out.split())
    assert main(["card", "val.csv", "test.csv", *options, "--out", "card.json"]) == 0
    carded = " ".join(capsys.readouterr().out.split())
    begin = evaluated.index("Expects 'yes' in")
    sentences = evaluated[begin : evaluated.index(" test.csv: 200 samples")]
    assert " After auto: expects 'yes' in " in sentences
    assert sentences.count("occur") == 2
    assert carded[carded.index("Expects 'yes' in") :].startswith(sentences)
    for page in ("e.html", "card.html"):
        text = " ".join((tmp_path / page).read_text().split())
        assert text.count("After auto: expects") == 1


@pytest.mark.parametrize("event", [[], ["--event", "gold"]])
def test_event_name_does_not_make_four_classes_two(tmp_path, monkeypatch, capsys, event):
    """The advice --classes OTHER,silver, followed, read the score of gold as that of silver."""
    monkeypatch.chdir(tmp_path)
    tiers = np.array(["gold", "silver", "bronze", "none"])[np.arange(40) % 4]
    pd.DataFrame({"p_gold": np.linspace(0, 1, 40), "tier": tiers}).to_csv("t.csv", index=False)
    options = ["--probs", "p_gold", "--target", "tier", *event]
    assert main(["evaluate", "t.csv", *options]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "labels must be of two classes, because 'p_gold' is the only score column" in shown
    assert "got bronze, gold, none, silver. Merge them into two, such as 'gold' and" in shown
    assert "--classes" not in shown
