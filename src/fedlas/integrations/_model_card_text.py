"""The text of a Hub model card, from a calibration card."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fedlas._core.text import printable
from fedlas.metrics import METRICS

WEIGHTS, CARD = "model.safetensors", "card.json"
_ARROWS: dict[bool | None, str] = {True: " ↑", False: " ↓"}


def sections(content: Mapping[str, Any], file: str, repo_id: str) -> Iterator[str]:
    """The text of a model card, part by part."""
    model, calibration, metrics = content["model"], content["calibration"], content["metrics"]
    # What it is.
    method = word(calibration["method"])
    temperature = calibration.get("temperature")
    how = f"temperature {float(temperature):.4g}" if temperature is not None else method
    data = word(content["data"]["name"])
    meant = f"calibrated ({how}), so that confidence is meant as a probability for inputs like those of {data}"
    yield f"# {word(model['run'])}"
    yield (
        f"A classifier of {int(model['num_classes'])} classes. Its logits are "
        f"{'not calibrated' if method == 'none' else meant}. The model's file is `{word(file)}`; `{CARD}` has all "
        "numbers of this page and more."
    )
    if file == WEIGHTS:
        yield _USE.replace('"user/name"', json.dumps(str(repo_id)))
    # What was measured.
    heads = list(metrics)
    columns = [*map(word, heads), f"95 % interval, {word(heads[-1])}"]
    table = [f"| metric | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for name, last in metrics[heads[-1]].items():
        about: Mapping[str, Any] = METRICS[name].metadata if name in METRICS else {}
        scale, places = (100, 2) if about.get("percent") else (1, 4)
        arrow = _ARROWS.get(about.get("higher_is_better"), "")
        title = f"{about.get('title', word(name))}{' %' if about.get('percent') else ''}{arrow}"
        cells = [f"{scale * float(metrics[stage][name]['value']):.{places}f}" for stage in heads]
        ends = [f"{scale * float(last[end]):.{places}f}" for end in ("low", "high") if end in last]
        table.append(f"| {title} | {' | '.join(cells)} | {' to '.join(ends)} |")
    yield "## Metrics on the test part\n\n" + "\n".join(table)
    rows = [row for row in content.get("selective", {}).get("thresholds", ()) if row["threshold"] is not None]
    if rows:
        yield _REJECT + "\n".join(
            f"| {100 * row['risk']:g} | {row['threshold']:.4f} | {100 * row['test']['coverage']:.1f} | "
            f"{'' if row['test']['risk'] is None else format(100 * row['test']['risk'], '.2f')} | "
            f"{100 * row['test']['upper']:.2f} |"
            for row in rows
        )
    yield "## Known limits\n\n" + "\n".join(f"- {word(limit)}" for limit in content["limits"])


def word(text: object) -> str:
    """Text of a card on one line that neither ends a table's cell nor begins markup."""
    return re.sub(r"([|<>`\[\]*])", r"\\\1", printable(str(text)).replace("\n", " "))


_USE = """```python
from fedlas.integrations.huggingface_hub import from_pretrained

model = from_pretrained("user/name", architecture)  # built by you: the file holds no code
probs = model.predict_proba(inputs)
```"""
_REJECT = """## Reject option

Accept predictions from this confidence on to keep the share of errors among them below the wanted one (selective
classification). The threshold was chosen on validation data; the last three columns are of test data.

| wanted % | accept from | accepted % | wrong % | at most % |
|---:|---:|---:|---:|---:|
"""
