"""Rows of features: tables, texts, and data sets of Hugging Face on disk."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fakes_data import FAKES, rows_of_table, write_csv, write_hf_split
from fedlas.errors import InputError
from fedlas.lab.data import load_dataset, split
from fedlas.lab.recipes import plan_runs, recipe_from_content
from fedlas.lab.runs import execute, load_trained_run

QUICK = {"epochs": 2, "batch_size": 16, "precision": "fp32"}


def test_columns_become_numbers_and_categories(tmp_path):
    head = ["a", "b", "ok", "label"]
    path = write_csv(tmp_path / "t.csv", head, [[1.5, "x", "true", 1], [2, "y", "false", 0]] * 5)
    source = load_dataset("table", str(path))
    assert source.classes == ("0", "1")
    assert source.train.images.shape[1:] == (4,)
    every = torch.cat([source.train.images, source.test.images])
    target = torch.cat([source.train.target, source.test.target])
    assert every[target == 1].unique(dim=0).tolist() == [[1.5, 1.0, 0.0, 1.0]]
    assert every[target == 0].unique(dim=0).tolist() == [[2.0, 0.0, 1.0, 0.0]]


def test_features_are_normalized_by_the_training_part(tmp_path):
    source = load_dataset("table", str(FAKES["table"](tmp_path)), features=["size", "weight"])
    splits = split(source, seed=0, val_size=10)
    rows = torch.cat([x for x, *_ in splits.batches(splits.train, batch_size=8)])
    torch.testing.assert_close(rows.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(rows.std(0, correction=0), torch.ones(2), atol=1e-6, rtol=0)


def test_a_test_file_and_lists_in_parquet(tmp_path):
    for name, count in (("train", 8), ("test", 4)):
        table = pa.table(
            {"v": [[float(n), 1.0] for n in range(count)], "y": ["a", "b"] * (count // 2)}
        )
        pq.write_table(table, tmp_path / f"{name}.parquet")
    root = str(tmp_path / "train.parquet")
    source = load_dataset("table", root, target="y", test="test.parquet")
    assert (len(source.train), len(source.test)) == (8, 4)
    assert source.test.images[:, 0].tolist() == [0, 1, 2, 3]


def test_missing_numbers_are_refused_or_imputed(tmp_path):
    rows = [[n, n % 2] for n in range(10)]
    rows[3][0] = ""
    path = write_csv(tmp_path / "t.csv", ["a", "label"], rows)
    with pytest.raises(InputError, match="1 rows without a number in column 'a'"):
        load_dataset("table", str(path))
    source = load_dataset("table", str(path), missing="mean")
    every = torch.cat([source.train.images, source.test.images]).flatten()
    train = torch.tensor(
        [n for n in range(10) if n != 3 and n in source.train.images], dtype=torch.float32
    )
    filled = [value for value in every.tolist() if value not in range(10)] or [float(train.mean())]
    assert filled == pytest.approx([float(train.mean())])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": "lable"}, "data.target must name a column .*'lable'.*'label'"),
        ({"features": ["sise"]}, "data.features must name a column .*'size'"),
        ({"features": []}, "must have at least one column of features"),
        ({"missing": "drop"}, "missing must be"),
        ({"test": "none.csv"}, "the table must be"),
        ({"target": "size"}, "labels must be class names or whole numbers"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        load_dataset("table", str(FAKES["table"](tmp_path)), **options)


def test_unusable_columns_are_refused(tmp_path):
    dates = pa.table({"when": pa.array([0, 1, 2, 3], pa.timestamp("s")), "label": [0, 1, 0, 1]})
    pq.write_table(dates, tmp_path / "dates.parquet")
    with pytest.raises(InputError, match=r"column 'when' of timestamp"):
        load_dataset("table", str(tmp_path / "dates.parquet"))
    names = write_csv(tmp_path / "n.csv", ["name", "label"], [[f"n{n}", n % 2] for n in range(202)])
    with pytest.raises(InputError, match="at most 100 categories; got 202 in 'name'"):
        load_dataset("table", str(names))
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="the table must be"):
        load_dataset("table", str(tmp_path / "t.csv"))
    (tmp_path / "t.xlsx").write_bytes(b"x")
    with pytest.raises(InputError, match=r"must be a \.csv or \.parquet file"):
        load_dataset("table", str(tmp_path / "t.xlsx"))


def test_texts_are_encoded_by_the_users_function(tmp_path, monkeypatch):
    head, rows = rows_of_table(30)
    path = write_csv(tmp_path / "t.csv", head, rows)
    source = load_dataset("texts", str(path), encoder="fakes_data:counted_letters")
    assert source.train.images[source.train.target == 1].unique(dim=0).tolist() == [[0, 3, 0, 0]]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def encode(texts):\n    return [[len(t)] for t in texts]\n")
    assert load_dataset("texts", str(path), encoder="mine:encode").train.images.shape[1:] == (1,)
    for encoder, words in (
        (None, "one of data.encoder and data.tokenizer"),
        ("mine:other", "encoder must be module:function"),
        ("nowhere:encode", "encoder must be module:function"),
        ("builtins:len", r"must return features \(30, D\)"),
    ):
        with pytest.raises(InputError, match=words):
            load_dataset("texts", str(path), encoder=encoder)


def recipe(name, model, root, **options):
    sections = {
        "data": {"name": name, "root": str(root), "val_size": 12, **options},
        "train": QUICK,
    }
    return recipe_from_content("mine", {"title": "mine", "model": model, **sections})


@pytest.mark.parametrize("model", [{"name": "linear"}, {"name": "mlp", "hidden": [8]}])
def test_a_recipe_trains_on_a_table(tmp_path, model):
    [run] = plan_runs(
        recipe("table", model, FAKES["table"](tmp_path)), losses=["ce"], seeds=[0], out=tmp_path
    )
    metrics = execute(run)
    assert 0 <= metrics["test"]["ece"] <= 1
    trained = load_trained_run(run.folder)
    assert trained.splits.train.shape == (2 + 2 + 3,)


def test_encoder_of_untrusted_folder_is_not_called(tmp_path, monkeypatch):
    encoder = "fakes_data:counted_letters"
    data = FAKES["texts"](tmp_path)
    [run] = plan_runs(
        recipe("texts", {"name": "linear"}, data, encoder=encoder),
        losses=["ce"],
        seeds=[0],
        out=tmp_path,
    )
    assert execute(run)["test"]["accuracy"] == 1
    with pytest.raises(InputError, match="set FEDLAS_ENCODER=fakes_data:counted_letters"):
        load_trained_run(run.folder)
    monkeypatch.setenv("FEDLAS_ENCODER", encoder)
    assert load_trained_run(run.folder).splits.train.shape == (4,)


def test_hugging_face_splits_of_numbers_and_texts(tmp_path):
    table = pa.table({"x": [1.0, 2.0] * 10, "text": ["aa", "b"] * 10, "y": [0, 1] * 10})
    features = {"y": {"_type": "ClassLabel", "names": ["no", "yes"]}}
    write_hf_split(tmp_path / "whole", table, features)
    root = str(tmp_path / "whole")
    numbers = load_dataset("hf", root, target="y", inputs="x")
    assert numbers.classes == ("no", "yes")
    assert (len(numbers.train), len(numbers.test)) == (16, 4)
    texts = load_dataset(
        "hf", root, target="y", inputs="text", encoder="fakes_data:counted_letters"
    )
    assert texts.train.images.unique(dim=0).tolist() == [[0, 1, 0, 0], [2, 0, 0, 0]]
    (tmp_path / "whole" / "data-00000-of-00001.arrow").write_bytes(b"not arrow")
    with pytest.raises(InputError, match="a split must consist of the Arrow files"):
        load_dataset("hf", root, target="y")


def test_hugging_face_images_and_absent_splits(tmp_path):
    root = str(FAKES["hf"](tmp_path))
    source = load_dataset("hf", root)
    assert (source.classes, source.train.shape) == (("cat", "dog"), (3, 9, 9))
    assert load_dataset("hf", root, image_size=4, channels=1).train.shape == (1, 4, 4)
    with pytest.raises(InputError, match="with train, test"):
        load_dataset("hf", root, test="validation")
