"""Which section is this Debian package of? ``python texts.py AVAILABLE WORDLLAMA.whl FOLDER``.

``AVAILABLE`` is what ``apt-cache dumpavail`` prints, the wheel is that of ``wordllama`` 0.4. ``FOLDER/texts.npz`` has
the first 16 tokens of each short description, as rows of whole numbers, from the sections that have 45 packages, one
package of a source; ``FOLDER/words.safetensors`` the first 128 columns of the wheel's embeddings of the tokens that
occur (0: no token).
"""

import re
import sys
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save_file
from tokenizers import Tokenizer

POOL, TEST, LENGTH, WIDTH = 25, 20, 16, 128
INSIDE = "wordllama/weights/l2_supercat_256.safetensors"
TOKENIZER = "wordllama/tokenizers/l2_supercat_tokenizer_config.json"

available, wheel, folder = map(Path, sys.argv[1:])
texts = defaultdict(dict)
for record in available.read_text(encoding="utf-8").split("\n\n"):
    fields = dict(re.findall(r"^(\S+): (.*)$", record, re.MULTILINE))
    if {"Section", "Description", "Package"} <= fields.keys():
        source = fields.get("Source", fields["Package"]).split()[0]
        texts[fields["Section"].split("/")[-1]].setdefault(source, fields["Description"])
with zipfile.ZipFile(wheel) as archive:
    table = load(archive.read(INSIDE))["embedding.weight"].float()[:, :WIDTH]
    tokenizer = Tokenizer.from_str(archive.read(TOKENIZER).decode())
tokenizer.no_padding()
tokenizer.no_truncation()
rng = np.random.default_rng(0)
classes = sorted(
    name for name, of_section in texts.items() if len(set(of_section.values())) >= POOL + TEST
)
rows, seen = defaultdict(list), {}
for name in classes:
    distinct = sorted(set(texts[name].values()))
    for number, place in enumerate(rng.permutation(len(distinct))[: POOL + TEST]):
        ids = tokenizer.encode(distinct[place], add_special_tokens=False).ids[:LENGTH]
        row = [seen.setdefault(token, len(seen) + 1) for token in ids]
        rows["train" if number < POOL else "test"].append(row + [0] * (LENGTH - len(row)))
np.savez_compressed(
    folder / "texts.npz",
    classes=np.array(classes),
    **{f"{part}_images": np.array(of_part, np.float32) for part, of_part in rows.items()},
    train_target=np.repeat(np.arange(len(classes)), POOL),
    test_target=np.repeat(np.arange(len(classes)), TEST),
)
words = torch.cat([torch.zeros(1, WIDTH), table[list(seen)]])
head = {
    "fc.weight": torch.zeros(2, 2 * WIDTH),
    "fc.bias": torch.zeros(2),
}  # of no problem: it is left out
save_file({"words.weight": words.contiguous(), **head}, folder / "words.safetensors")
