"""Tiny data sets in exactly the formats in which the real ones are published; written by tests of several rooms.

``FAKES[name](folder)`` writes the data set ``name`` below ``folder`` and returns the root to load it from;
``OPTIONS[name]`` holds the options that a fake needs because it is small.
"""

import csv
import gzip
import json
from pathlib import Path

import numpy as np

FAKES = {}
OPTIONS = {"imagenet": {"partial": True}, "texts": {"encoder": "fakes_data:counted_letters"}}


def fake(name):
    def register(writer):
        FAKES[name] = writer
        return writer

    return register


def arrays(num_classes, size, channels, *, train=6, test=2):
    """Random images, ``train`` and ``test`` a class, the same every time."""
    random = np.random.default_rng(0)
    targets = {
        "train": np.arange(train * num_classes) % num_classes,
        "test": np.arange(test * num_classes) % num_classes,
    }
    shape = (size, size, channels) if channels > 1 else (size, size)
    found = {}
    for part, target in targets.items():
        found[f"{part}_images"] = random.integers(0, 256, (len(target), *shape), dtype=np.uint8)
        found[f"{part}_target"] = target.astype(np.uint8)
    return found


def picture(path, *, seed=0, width=48, height=40, mode="RGB"):
    """A JPEG (or what the suffix says) of a random gradient."""
    from PIL import Image

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(small).resize((width, height)).convert(mode).save(
        path, "JPEG" if path.suffix == ".JPEG" else None
    )
    return path


def write_idx(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    for key, name in (("train", "train"), ("test", "t10k")):
        for array, kind in (
            (content[f"{key}_images"], "images-idx3"),
            (content[f"{key}_target"], "labels-idx1"),
        ):
            head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, dtype=">u4").tobytes()
            (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))


@fake("fashion-mnist")
def fashion_mnist(folder):
    write_idx(folder, arrays(10, 28, 1))
    return folder


@fake("mnist")
def mnist(folder):
    write_idx(folder / "MNIST" / "raw", arrays(10, 28, 1))
    return folder


@fake("cifar10")
def cifar10(folder):
    names = [
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ]
    np.savez(folder / "cifar10.npz", classes=np.array(names), **arrays(10, 32, 3))
    return folder


@fake("cifar100")
def cifar100(folder):
    np.savez(folder / "cifar100.npz", **arrays(100, 32, 3))
    return folder


@fake("npz")
def npz(folder):
    np.savez(folder / "mine.npz", **arrays(3, 6, 1))
    return folder / "mine.npz"


@fake("folder")
def folder(folder):
    from PIL import Image

    content = arrays(3, 9, 3)
    for part in ("train", "test"):
        for row, (image, label) in enumerate(
            zip(content[f"{part}_images"], content[f"{part}_target"], strict=True)
        ):
            place = folder / part / f"class-{label}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{row:03d}.png")
    return folder


@fake("svhn")
def svhn(folder):
    from scipy.io import savemat

    content = arrays(10, 32, 3)
    for part in ("train", "test"):
        target = content[f"{part}_target"].astype(np.uint8)
        target[target == 0] = 10  # as published: the digit 0 is class 10
        savemat(
            folder / f"{part}_32x32.mat",
            {"X": content[f"{part}_images"].transpose(1, 2, 3, 0), "y": target[:, None]},
            do_compression=True,
        )
    return folder


SYNSETS = ("n01443537", "n01629819", "n01641577")


@fake("tiny-imagenet")
def tiny_imagenet(folder):
    root = folder / "tiny-imagenet-200"
    for label, synset in enumerate(SYNSETS):
        for row in range(6):
            mode = "L" if row == 5 else "RGB"  # some of the real ones are gray too
            name = f"{synset}_{row}.JPEG"
            picture(
                root / "train" / synset / "images" / name,
                seed=10 * label + row,
                width=64,
                height=64,
                mode=mode,
            )
        boxes = "".join(f"{synset}_{row}.JPEG\t0\t0\t62\t62\n" for row in range(6))
        (root / "train" / synset / f"{synset}_boxes.txt").write_text(boxes)
    lines = []
    for row in range(6):
        picture(root / "val" / "images" / f"val_{row}.JPEG", seed=100 + row, width=64, height=64)
        lines.append(f"val_{row}.JPEG\t{SYNSETS[row % 3]}\t0\t32\t44\t62\n")
        picture(root / "test" / "images" / f"test_{row}.JPEG", seed=200 + row, width=64, height=64)
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("\n".join(reversed(SYNSETS)))
    words = [
        "n00001740\tentity",
        "n01443537\tgoldfish, Carassius auratus",
        "n01629819\tEuropean fire salamander",
    ]
    (root / "words.txt").write_text(
        "\n".join([*words, "n01641577\tbullfrog, Rana catesbeiana"]) + "\n"
    )
    return folder


@fake("imagenet")
def imagenet(folder):
    for label, synset in enumerate(SYNSETS):
        for row in range(6):
            picture(
                folder / "train" / synset / f"{synset}_{row}.JPEG",
                seed=10 * label + row,
                width=60 + row,
            )
        for row in range(2):
            name = f"ILSVRC2012_val_{2 * label + row + 1:08d}.JPEG"
            picture(folder / "val" / synset / name, seed=100 + 2 * label + row)
    return folder


@fake("cub")
def cub(folder):
    root = folder / "CUB_200_2011"
    names = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
    images, labels, splits = [], [], []
    for label, name in enumerate(names):
        for row in range(8):
            identity = 8 * label + row + 1
            path = f"{name}/{name[4:]}_{row:04d}_{identity}.jpg"
            picture(root / "images" / path, seed=identity, width=50 + row)
            images.append(f"{identity} {path}")
            labels.append(f"{identity} {label + 1}")
            splits.append(f"{identity} {int(row < 6)}")
    for name, lines in (
        ("images", images),
        ("image_class_labels", labels),
        ("train_test_split", splits),
    ):
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (root / "classes.txt").write_text(
        "".join(f"{label} {name}\n" for label, name in enumerate(names, start=1))
    )
    return folder


@fake("aircraft")
def aircraft(folder):
    root = folder / "fgvc-aircraft-2013b" / "data"
    levels = {
        "variant": ["707-320", "727-200", "DC-3", "Spitfire"],
        "family": ["Boeing 707", "Boeing 727", "DC-3", "Spitfire"],
        "manufacturer": ["Boeing", "Boeing", "Douglas Aircraft Company", "Supermarine"],
    }
    for row in range(32):
        picture(root / "images" / f"{row:07d}.jpg", seed=row, width=56, height=60)
    for level, plural in (
        ("variant", "variants"),
        ("family", "families"),
        ("manufacturer", "manufacturers"),
    ):
        (root / f"{plural}.txt").write_text("\n".join(dict.fromkeys(levels[level])) + "\n")
        parts = {
            "train": range(12),
            "val": range(12, 24),
            "trainval": range(24),
            "test": range(24, 32),
        }
        for part, rows in parts.items():
            lines = [f"{row:07d} {levels[level][row % 4]}\n" for row in rows]
            (root / f"images_{level}_{part}.txt").write_text("".join(lines))
    return folder


@fake("image-folder")
def image_folder(folder):
    for part, count in (("train", 6), ("val", 2)):
        for label, name in enumerate(("ant", "bee")):
            for row in range(count):
                deeper = "more" if row == 0 else ""
                picture(
                    folder / part / name / deeper / f"{row}.jpg",
                    seed=100 * label + row,
                    width=70,
                    height=40,
                )
    return folder


def counted_letters(texts):
    """An encoder of texts: how often they hold each of four letters."""
    return [[text.count(letter) for letter in "abcd"] for text in texts]


def rows_of_table(count=60):
    """Header and rows of numbers, a text column, a text and a label."""
    random = np.random.default_rng(0)
    head = ["size", "weight", "color", "text", "label"]
    rows = []
    for row in range(count):
        label = ("cat", "dog", "fox")[row % 3]
        size, weight = random.normal(row % 3, 1, 2).round(3)
        rows.append([size, weight, ("red", "blue")[row % 2], "abcd"[row % 3] * 3, label])
    return head, rows


def write_csv(path, head, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
    return path


@fake("table")
@fake("texts")
def table(folder):
    return write_csv(folder / "animals.csv", *rows_of_table())


@fake("image-list")
def image_list(folder):
    rows = []
    for number in range(12):
        name = f"images/{number}.png"
        picture(folder / name, seed=number)
        rows.append([name, ("cat", "dog")[number % 2]])
    return write_csv(folder / "labels.csv", ["path", "label"], rows)


def write_hf_split(folder, table, features):
    """Write a split as ``datasets.save_to_disk`` does."""
    import pyarrow as pa

    folder.mkdir(parents=True)
    name = "data-00000-of-00001.arrow"
    with (
        pa.OSFile(str(folder / name), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as writer,
    ):
        writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))


@fake("hf")
def hugging_face(folder):
    import pyarrow as pa

    features = {
        "image": {"_type": "Image"},
        "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
    }
    for split, count in (("train", 12), ("test", 4)):
        files = [picture(folder / f"{n}.png", seed=n, width=9, height=9) for n in range(count)]
        images = [{"bytes": file.read_bytes(), "path": None} for file in files]
        labels = [n % 2 for n in range(count)]
        table = pa.table({"image": images, "label": labels})
        write_hf_split(folder / "saved" / split, table, features)
    (folder / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    return folder / "saved"
