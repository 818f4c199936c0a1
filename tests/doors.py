"""What each of the three installs of the README can do: ``python tests/doors.py fedlas|tables|bench``.

Run by ``make test-doors`` in an environment that holds the door's packages and nothing else, so without pytest.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")

MODEL = """
import torch
import fedlas
torch.manual_seed(0)
inputs, labels = torch.randn(900, 20), torch.randint(0, 3, (900,))
def loader(part):
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs[part], labels[part]), batch_size=64)
train_loader, val_loader, test_loader = loader(slice(0, 300)), loader(slice(300, 600)), loader(slice(600, 900))
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(20, 8), torch.nn.ReLU(), torch.nn.Linear(8, 100))
"""
SAVED = """
fedlas.Predictions(3 * logits, target).save("scores.npz")
fedlas.Predictions(2 * logits, target).save("val.npz")
"""
TABLES = """
import numpy as np
import pandas as pd
random = np.random.default_rng(1)
def month(rows):
    logit = 1.5 * random.normal(size=rows) - 1
    churned = random.random(rows) < 1 / (1 + np.exp(-0.5 * logit))
    risk = 1 / (1 + np.exp(-1.3 * logit))
    region = random.choice(["north", "south", "east"], rows)
    return pd.DataFrame({"region": region, "p_no": 1 - risk, "p_yes": risk, "churned": np.where(churned, "yes", "no")})
for name in ("val", "test", "live"):
    month(800).to_csv(f"{name}.csv", index=False)
other = pd.read_csv("test.csv")
other["p_yes"] = other["p_yes"] ** 1.5
other.assign(p_no=1 - other["p_yes"]).to_csv("other.csv", index=False)
"""
COLUMNS = "--probs p_* --target churned"


def commands(door: str) -> list[str]:
    """Return the commands that a door must run."""
    arrays = [
        "evaluate scores.npz",
        "evaluate scores.npz --on val.npz",
        "compare scores.npz val.npz",
        "calibrate val.npz --out cal-array.json",
        "apply cal-array.json scores.npz --out calibrated.npz",
        "list losses",
    ]
    tables = [
        "init val.csv",
        f"evaluate test.csv {COLUMNS} --on val.csv --report page.html",
        f"calibrate val.csv {COLUMNS} --out cal.json",
        "apply cal.json live.csv --out live.calibrated.csv",
        f"compare test.csv other.csv {COLUMNS}",
        f"card val.csv test.csv {COLUMNS} --out card.json",
        f"monitor card.json live.csv {COLUMNS} --page watched.html",
        "export cal.json --format sql --out cal.sql",
        "sample-size --prevalence 0.3 --auroc 0.8",
    ]
    bench = ["bench digits --losses ce fedlas --seeds 0 --set train.epochs=1 --out runs"]
    return {"fedlas": arrays, "tables": tables, "bench": bench}[door]


def main(door: str) -> int:
    """Run the snippets and commands of a door in an empty folder; print the last line of each, and how many passed."""
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
        programs = {
            "fedlas": ["\n".join([MODEL, *blocks, SAVED])],
            "tables": [TABLES],
            "bench": [],
        }[door]
        runs = [
            ("README" if door == "fedlas" else "tables", ["-W", "error", "-c", text])
            for text in programs
        ]
        runs += [(f"fedlas {line}", ["-m", "fedlas", *line.split()]) for line in commands(door)]
        for name, words in runs:
            done = subprocess.run(
                [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False
            )
            good = done.returncode == 0
            passed, failed = passed + good, failed + (not good)
            last = (done.stdout if good else done.stderr).strip().splitlines()[-1:] or [""]
            print(f"{'ok ' if good else 'BAD'} {name}: {last[0]}")
    print(f"{passed} passed, {failed} failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
