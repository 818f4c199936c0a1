import ast
import json

import pytest
import torch
from torch import nn

import fedlas
from fedlas import Predictions
from fedlas.deploy import fit_calibration, make_card
from fedlas.errors import InputError
from fedlas.metrics import evaluate

pytest.importorskip("huggingface_hub")
from huggingface_hub import ModelCard

from fedlas.integrations.huggingface_hub import (
    download,
    from_pretrained,
    model_card,
    push_to_hub,
    save_pretrained,
)


def drawn(samples, seed):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, 4, generator=random, dtype=torch.float64)
    return Predictions(3 * logits, torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0])


@pytest.fixture(scope="module")
def parts():
    val, test = drawn(1500, 0), drawn(1000, 1)
    return val, test, fit_calibration("temperature", val)


@pytest.fixture(scope="module")
def card(parts):
    val, test, calibration = parts
    return make_card(
        val,
        test,
        calibration,
        model={"run": "my|net"},
        data={"name": "My Data"},
        risks=(0.5, 0.0001),
    )


class Model:
    """As a CalibratedModel: it writes itself into a file."""

    def save(self, path):
        path.write_bytes(b"weights")
        return path


class Api:
    """Of the Hub, as far as an upload uses it."""

    def __init__(self):
        self.calls = []

    def create_repo(self, repo_id, *, private, exist_ok):
        self.calls.append(("create", repo_id, private, exist_ok))
        return f"https://hub/{repo_id}"

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        names = [
            str(path.relative_to(folder_path)) for path in folder_path.rglob("*") if path.is_file()
        ]
        files = {name: (folder_path / name).read_bytes() for name in names}
        self.calls.append(("upload", repo_id, files, commit_message))


def test_the_hub_reads_every_calibrated_metric(parts, card):
    _, test, calibration = parts
    found = ModelCard(
        str(model_card(card, task="text-classification", license="mit", tags=["mine"]))
    )
    results = {each.metric_type: each.metric_value for each in found.data.eval_results}
    expected = evaluate(calibration.transform(test))
    assert results == pytest.approx(expected)
    data = found.data.to_dict()
    assert (data["license"], data["pipeline_tag"], data["library_name"]) == (
        "mit",
        "text-classification",
        "fedlas",
    )
    assert data["tags"] == ["calibration", "mine"]
    assert {each.dataset_type for each in found.data.eval_results} == {"my-data"}


def test_people_read_metrics_thresholds_and_limits(parts, card):
    _, test, calibration = parts
    text = model_card(card).text
    before, after = evaluate(test)["ece"], evaluate(calibration.transform(test))["ece"]
    assert f"| ECE % ↓ | {100 * before:.2f} | {100 * after:.2f} |  |" in text
    row = card.selective["thresholds"][0]
    assert f"| 50 | {row['threshold']:.4f} | {100 * row['test']['coverage']:.1f} |" in text
    assert "| 0.01 |" not in text  # no threshold could be vouched for
    for limit in card.limits:
        assert f"- {limit}" in text.replace("\\", "")
    assert "# my\\|net" in text
    assert f"temperature {calibration.temperature:.4g}" in text


def test_name_and_dataset_override_the_card(card):
    found = model_card(
        {**card.to_dict(), "calibration": {"method": "none"}}, name="net", dataset="CIFAR-10"
    )
    assert found.data.model_name == "net"
    assert {each.dataset_type for each in found.data.eval_results} == {"cifar-10"}
    assert "# net\n" in found.text
    assert "not calibrated" in found.text
    assert card.name == "my|net"


def test_intervals_stand_next_to_the_numbers(card):
    entry = {"value": 0.02, "low": 0.01, "high": 0.03}
    content = {
        **card.to_dict(),
        "metrics": {"as predicted": {"ece": {"value": 0.1}}, "calibrated": {"ece": entry}},
    }
    assert "| ECE % ↓ | 10.00 | 2.00 | 1.00 to 3.00 |" in model_card(content).text


def test_event_card_shows_event_metrics():
    random = torch.Generator().manual_seed(0)
    log_odds = 2 * torch.randn(2, 300, generator=random, dtype=torch.float64)
    val, test = (
        Predictions(
            torch.stack([0 * each, 1.5 * each], dim=1),
            torch.bernoulli(each.sigmoid(), generator=random).long(),
            event=1,
        )
        for each in log_odds
    )
    made = fedlas.card(val, test, "temperature", name="m", replicates=60)
    shown = model_card(made)
    slope = made.card.event["measures"]["calibrated"]["slope"]
    assert "| calibration slope → 1 | 0.6" in shown.content
    assert f"{slope['value']:.3f} | {slope['low']:.3f} to {slope['high']:.3f} |" in shown.content
    assert "| Brier score ↓ |" in shown.content
    assert "nan" not in shown.content
    results = {each.metric_type: each for each in shown.data.eval_results}
    assert results["slope"].metric_name == "calibration slope"
    assert results["slope"].metric_value == slope["value"]


def test_a_folder_holds_model_card_and_readme(card, tmp_path):
    folder = save_pretrained(Model(), tmp_path / "hub", card=card)
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "card.json",
        "README.md",
    }
    assert json.loads((folder / "card.json").read_text()) == json.loads(json.dumps(card.to_dict()))
    assert "from_pretrained(" in (folder / "README.md").read_text()
    assert download(folder) == folder
    exported = tmp_path / "net.onnx"
    exported.write_bytes(b"graph")
    again = save_pretrained(str(exported), folder, card=folder / "card.json")
    assert (again / "net.onnx").read_bytes() == b"graph"
    assert "from_pretrained(" not in (again / "README.md").read_text()


def test_unknown_option_raises_before_writing(card, tmp_path):
    with pytest.raises(
        InputError,
        match=r"an option must be one of dataset, .*Did you mean 'license'",
    ):
        save_pretrained(Model(), tmp_path / "hub", card=card, licence="mit")
    assert not (tmp_path / "hub").exists()


def test_a_calibrated_model_comes_back(card, tmp_path):
    torch.manual_seed(0)
    inputs = torch.randn(400, 3)
    net = nn.Linear(3, 3)
    target = torch.multinomial((net(inputs) / 3).softmax(1), 1)[:, 0]
    model = fedlas.calibrate(net, [(inputs, target)])
    folder = save_pretrained(model, tmp_path / "hub", card=card)
    again = from_pretrained(folder, nn.Linear(3, 3))
    assert torch.equal(again.predict_proba(inputs), model.predict_proba(inputs))


def test_upload_creates_repository_and_sends_three_files(card, tmp_path):
    api = Api()
    assert (
        push_to_hub(Model(), "me/net", private=True, api=api, card=card, license="mit")
        == "https://hub/me/net"
    )
    create, upload = api.calls
    assert create == ("create", "me/net", True, True)
    _, repo_id, files, message = upload
    assert (repo_id, message) == ("me/net", "Model with its calibration card")
    assert files.keys() == {"README.md", "card.json", "model.safetensors"}
    assert 'from_pretrained("me/net",' in files["README.md"].decode()
    # a folder may hold files that nobody meant to publish
    with pytest.raises(InputError, match="existing file"):
        push_to_hub(
            save_pretrained(Model(), tmp_path / "hub", card=card), "me/net", api=api, card=card
        )
    assert len(api.calls) == 2


@pytest.mark.parametrize("name", ["README.md", "card.json", ".env"])
def test_model_named_like_card_or_readme_is_refused(card, tmp_path, name):
    (tmp_path / name).write_bytes(b"graph")
    with pytest.raises(InputError, match="model's file"):
        save_pretrained(tmp_path / name, tmp_path / "hub", card=card)
    assert not (tmp_path / "hub").exists()


def test_a_repository_is_quoted_for_python(card):
    text = model_card(card, repo_id='a", __import__("os"), "\n').text
    block = text.split("```python\n")[1].split("```")[0]
    call = ast.parse(block).body[1].value
    assert ast.literal_eval(call.args[0]) == 'a", __import__("os"), "\n'


def test_invalid_arguments_raise_and_write_nothing(card, tmp_path):
    place, api = tmp_path / "hub", Api()
    for model, given, message in (
        (3, card, "must have save"),
        (tmp_path / "nothing.onnx", card, "or be an existing file"),
        (Model(), {"format": "other"}, "must have format 'fedlas.card/1'; got a dict"),
        (Model(), tmp_path / "nothing.json", "nothing.json"),
        (Model(), {"format": "fedlas.card/1"}, "'calibration' is missing"),
        (
            Model(),
            {**card.to_dict(), "metrics": {"calibrated": {"ece": {"value": 10**400}}}},
            "OverflowError",
        ),
    ):
        with pytest.raises(InputError, match=message):
            save_pretrained(model, place, card=given)
    assert not place.exists()
    with pytest.raises(InputError, match="must have format"):
        push_to_hub(Model(), "me/net", api=api, card={})
    assert api.calls == []


@pytest.mark.parametrize("name", ["README.md", "card.json", "model.safetensors", "net.onnx"])
def test_somebody_elses_files_stay(card, tmp_path, name):
    exported = tmp_path / "net.onnx"
    exported.write_bytes(b"graph")
    hub = tmp_path / "hub"
    hub.mkdir()
    (hub / name).write_text("mine")
    with pytest.raises(InputError, match=rf"{name} must be new, or .* to be replaced"):
        save_pretrained(exported if name == "net.onnx" else Model(), hub, card=card)
    assert [path.read_text() for path in hub.iterdir()] == ["mine"]


def test_a_model_in_the_folder_itself_is_taken(card, tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"graph")
    save_pretrained(tmp_path / "net.onnx", tmp_path, card=card)
    assert (tmp_path / "net.onnx").read_bytes() == b"graph"


def test_what_fedlas_card_returns_is_taken(parts, tmp_path):
    made = fedlas.card(*parts[:2], "temperature", replicates=0, period="October 2026")
    folder = save_pretrained(Model(), tmp_path / "hub", card=made)
    page = (folder / "README.md").read_text()
    date = made.card.date
    assert (
        f"Measured on {date} with fedlas {fedlas.__version__}. Test samples of October 2026."
        in page
    )
    assert "October 2026" in made.text()
    assert "October 2026" in made.html()
    assert "pipeline_tag" not in page
    assert "Top-5" not in page


class Words(nn.Module):
    main_input_name = "input_ids"


@pytest.mark.parametrize(
    ("network", "task"),
    [
        (Words(), "text-classification"),
        (nn.Conv2d(3, 2, 1), "image-classification"),
        (nn.Linear(3, 2), None),
    ],
)
def test_the_task_is_that_of_the_inputs(card, tmp_path, network, task):
    model = Model()
    model.model = network
    readme = (save_pretrained(model, tmp_path / "hub", card=card) / "README.md").read_text()
    assert ModelCard(readme).data.to_dict().get("pipeline_tag") == task


def test_multi_label_card_has_one_row_per_label():
    random = torch.Generator().manual_seed(0)
    logits = [torch.randn(300, 2, generator=random) for _ in "ab"]
    val, test = (
        fedlas.MultiLabel(
            2 * z, torch.bernoulli(z.sigmoid(), generator=random), names=("cat", "dog")
        )
        for z in logits
    )
    text = str(model_card(fedlas.card(val, test, name="net", replicates=0)))
    assert "A classifier of 2 labels, of which a sample has none, one or many." in text
    assert "| macro ECE % ↓ |" in text
    line = next(line for line in text.splitlines() if line.startswith("| dog |"))
    assert line.count("|") == 8
    assert "" not in [cell.strip() for cell in line.strip("|").split("|")]
