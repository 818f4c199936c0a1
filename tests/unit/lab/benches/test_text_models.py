"""Text models that take tokens: trained by a bench from a table, a folder of Hugging Face, or objects in Python."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, DistilBertConfig
from transformers import DistilBertForSequenceClassification as DistilBert

from fakes_data import write_hf_split
from fedlas.errors import InputError
from fedlas.lab import bench
from fedlas.lab.data import load_dataset
from fedlas.lab.data.tokens import token_array
from fedlas.lab.models import build_model
from fedlas.lab.recipes import plan_runs, recipe_from_content
from fedlas.lab.runs import execute, load_trained_run

WORDS = ["good", "fine", "bad", "poor", "film", "plot"]
TEXTS = [
    (f"{WORDS[n % 4]} {WORDS[4 + n % 2]} {WORDS[4]}" * (1 + n % 3), n % 4 // 2) for n in range(120)
]
SMALL = {"vocab_size": 8, "max_position_embeddings": 12}
BERT = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
}  # fmt: skip
TRAIN = {"epochs": 3, "batch_size": 16, "precision": "fp32", "save_features": True}


def tokenize(texts):
    """Return the number of each word, and no more than 12."""
    rows = [[1 + WORDS.index(word) for word in WORDS if word in text] for text in texts]
    width = max(map(len, rows))
    return {
        "input_ids": [row + [0] * (width - len(row)) for row in rows],
        "attention_mask": [[1] * len(row) + [0] * (width - len(row)) for row in rows],
    }


def ragged(texts):
    return {"input_ids": [[1] * (1 + n % 2) for n, _ in enumerate(texts)]}


def wide(texts):
    return {"input_ids": [[1, 9]] * len(texts)}


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A text classifier with random weights and three classes."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(5)
    config = BertConfig(**SMALL, **BERT, num_labels=3)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "reviews.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *TEXTS])
    return path


def run_of(table, checkpoint, out, *, loss="ce", tokenizer="test_text_models:tokenize", **model):
    model = {"name": "hf", "checkpoint": str(checkpoint), "weights": str(checkpoint), **model}
    data = {"name": "texts", "root": str(table), "tokenizer": tokenizer, "val_size": 20}
    optimizer = {"name": "adamw", "lr": 0.01}
    content = {"data": data, "model": model, "train": TRAIN, "optimizer": optimizer}
    return plan_runs(
        recipe_from_content("reviews", {"title": "t", **content}), losses=[loss], seeds=[0], out=out
    )[0]


def test_a_checkpoint_learns_from_texts_and_has_features(table, checkpoint, tmp_path, monkeypatch):
    run = run_of(table, checkpoint, tmp_path, loss="fedlas")
    metrics = execute(run)
    assert metrics["test"]["accuracy"] > 0.9
    with pytest.raises(InputError, match="set FEDLAS_ENCODER=test_text_models:tokenize"):
        load_trained_run(run.folder)
    monkeypatch.setenv("FEDLAS_ENCODER", "test_text_models:tokenize")
    trained = load_trained_run(run.folder)
    assert trained.splits.train.shape == (2, 3)
    assert trained.splits.mean == ()


class Mean(nn.Module):
    """The mean of the embeddings of the words that the mask shows."""

    def __init__(self, num_classes):
        super().__init__()
        self.words = nn.Embedding(8, 6)
        self.fc = nn.Linear(6, num_classes)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask[:, :, None]
        return self.fc((self.words(input_ids) * mask).sum(1) / mask.sum(1))


def distilled(num_classes):
    sizes = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 8}
    return DistilBert(DistilBertConfig(**SMALL, **sizes, num_labels=num_classes))


def test_python_bench_passes_tokens_by_name(tmp_path):
    target = np.array([label for _, label in TEXTS])
    tokens = {name: np.array(rows) for name, rows in tokenize([text for text, _ in TEXTS]).items()}
    parts = [
        ({name: rows[part] for name, rows in tokens.items()}, target[part])
        for part in (slice(0, 60), slice(60, 80), slice(80, 120))
    ]
    options = {
        "models": {"mean": Mean, "distilled": distilled},
        "losses": ["ce"],
        "calibrators": ["raw", "temperature"],
        "seeds": 1,
        "settings": {"train": TRAIN, "optimizer": {"name": "adamw", "lr": 0.02}},
        "out": tmp_path,
    }
    frame = bench(*parts, **options).to_frame()
    assert frame.accuracy.max() > 0.9
    assert bench(*parts, **options).to_frame().equals(frame)  # nothing is trained again
    mixed = bench(*parts, **{**options, "losses": ["ce", "mixup"], "models": {"mean": Mean}})
    assert "tokens must be whole numbers" in " ".join(mixed.missing())


def test_a_folder_of_hugging_face_has_tokens(tmp_path):
    texts, labels = zip(*TEXTS, strict=True)
    features = {"label": {"_type": "ClassLabel", "names": ["no", "yes"]}}
    write_hf_split(tmp_path / "set", pa.table({"text": texts, "label": labels}), features)
    source = load_dataset(
        "hf", str(tmp_path / "set"), inputs="text", tokenizer="test_text_models:tokenize"
    )
    assert (source.train.shape, source.mean, len(source.test)) == ((2, 3), (), 24)
    assert source.train.images.max() == 6


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"tokenizer": "test_text_models:ragged"}, "tokens must be input_ids"),
        (
            {"tokenizer": "test_text_models:wide"},
            "token ids must be below 8, the vocabulary size of the model; got 9",
        ),
        ({"tokenizer": "builtins:len"}, "tokens must be input_ids"),
    ],
)
def test_what_no_model_can_take_is_named(table, checkpoint, tmp_path, changes, match):
    with pytest.raises(InputError, match=match):
        execute(run_of(table, checkpoint, tmp_path, **changes))


def test_models_and_tokens_must_fit(table, checkpoint, tmp_path):
    tokenizer = "test_text_models:tokenize"
    data = {"name": "texts", "root": str(table), "tokenizer": tokenizer}
    recipe = recipe_from_content(
        "reviews", {"title": "t", "data": data, "model": {"name": "linear"}}
    )
    with pytest.raises(InputError, match=r"must accept tokens; got linear. Choose one of: hf"):
        plan_runs(recipe, losses=["ce"])
    with pytest.raises(InputError, match="takes at most 12 tokens per sequence"):
        build_model("hf", num_classes=2, in_channels=2, image_size=13, checkpoint=str(checkpoint))
    for both in ({}, {"encoder": tokenizer, "tokenizer": tokenizer}):
        with pytest.raises(InputError, match=r"one of data.encoder and data.tokenizer"):
            load_dataset("texts", str(table), **both)


@pytest.mark.parametrize(
    ("tokens", "match"),
    [
        ([[1]], "tokens must be input_ids"),
        ({"ids": [[1]]}, r"got ids \('input_ids'\)"),
        ({"input_ids": [[1]], "offsets": [[1]]}, r"got input_ids, offsets \(unknown fields"),
        ({"input_ids": [[0.5]]}, "tokens must be"),
        ({"input_ids": [[-1]]}, "tokens must be"),
        ({"input_ids": [[2**24]]}, "tokens must be"),
        ({"input_ids": [[1], [2], [3]]}, "for 2 texts"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, "tokens must be"),
        ({"input_ids": [1, 2]}, "tokens must be"),
        ({"input_ids": []}, "tokens must be"),
        (5, "tokens must be"),
    ],
)
def test_tokens_of_another_form(tokens, match):
    with pytest.raises(InputError, match=match):
        token_array(tokens, 2)
    fields = {"input_ids": [[1, 2]], "token_type_ids": [[0, 1]]}
    assert token_array(fields).tolist() == [[[1, 2], [1, 1], [0, 1]]]
