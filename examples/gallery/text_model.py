"""
A fine-tuned text model
=======================

A small transformer learns which package of Python a sentence comes from, and ends far too sure of itself. One line
repairs it.
"""

import ast
import importlib.util
import random
from pathlib import Path
from zlib import crc32

import matplotlib.pyplot as plt
import torch
from transformers import BertConfig, BertForSequenceClassification

import fedlas
from fedlas.plots import reliability_diagram

PACKAGES = ["asyncio", "concurrent", "email", "json", "logging", "unittest", "multiprocessing"]


def sentences(package):
    """Yield the first lines of the docstrings of a package."""
    for path in sorted(Path(importlib.util.find_spec(package).origin).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
                yield ast.get_docstring(node).split("\n\n")[0]


def batch(texts):
    """Return texts as the model takes them; a word's number is its hash."""
    numbers = [[crc32(word.encode()) % 4999 + 1 for word in text.lower().split()[:16]] for text, _ in texts]
    input_ids = torch.tensor([row + [0] * (16 - len(row)) for row in numbers])
    labels = torch.tensor([label for _, label in texts])
    return {"input_ids": input_ids, "attention_mask": (input_ids > 0).long(), "labels": labels}


texts = [(text, label) for label, package in enumerate(PACKAGES) for text in sentences(package)]
random.Random(0).shuffle(texts)
batches = [batch(texts[start : start + 50]) for start in range(0, len(texts), 50)]
third = len(batches) // 3
train, val, test = batches[:third], batches[third : 2 * third], batches[2 * third :]

torch.manual_seed(0)
small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
model = BertForSequenceClassification(BertConfig(vocab_size=5000, num_labels=len(PACKAGES), **small))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for _ in range(20):
    for step in train:
        optimizer.zero_grad()
        model(**step).loss.backward()
        optimizer.step()

# %%
# ``calibrate`` takes the model and its batches as they are.

calibrated = fedlas.calibrate(model, val)
print(calibrated.before_after(test))

# %%
# Each bar holds the sentences with about the same confidence.

_, axes = plt.subplots(1, 2, figsize=(9, 5.5), layout="constrained")
reliability_diagram(fedlas.predict(model, test), ax=axes[0], title="fine-tuned")
reliability_diagram(fedlas.predict(calibrated, test), ax=axes[1], title="calibrated")
plt.show()
