"""A run folder of a stranger: no name or link in it reaches a file outside of it, and a damaged one is one run less."""

import contextlib
import json
import logging
import os
import shutil

import pytest
import yaml

from fedlas.cli import main
from fedlas.errors import InputError
from fedlas.lab.benches import run_all
from fedlas.lab.benches.executors.local import Worker, open_worker_log
from fedlas.lab.benches.executors.slurm import job_folder
from fedlas.lab.recipes import load_recipe, plan_runs, recipe_from_content
from fedlas.lab.runs import RunFolder, collect_runs, execute, load_trained_run

TINY = [
    "train.epochs=1", "train.batch_size=50", "data.train_size=100", "data.val_size=50", "data.test_size=50",
    "model.hidden=[8]",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "bench"
    for run in plan_runs(load_recipe("synthetic", TINY), losses=["ce", "ls"], seeds=[0], out=out):
        execute(run)
    return out


@pytest.fixture
def bench(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "bench")


@pytest.fixture
def treasure(tmp_path):
    (tmp_path / "treasure-s0").mkdir()
    (tmp_path / "treasure-s0" / "kept.txt").write_text("x")
    return tmp_path / "treasure-s0"


def edit(folder, **changes):
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    path.write_text(yaml.safe_dump(config))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": {"name": "/home/treasure"}}, "the loss must be a plain name"),
        ({"loss": {"name": "../../treasure"}}, "the loss must be a plain name"),
        ({"loss": {"name": ".."}}, "the loss must be a plain name"),
        ({"loss": {"name": 3}}, "the loss must be a plain name"),
        ({"recipe": "../.."}, "the recipe must be a plain name"),
        ({"recipe": "paper//etc"}, "the recipe must be a plain name"),
        ({"recipe": "/etc"}, "the recipe must be a plain name"),
        ({"seed": "../3"}, "seed must be a whole number"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"data": {"root": "/etc"}}, "must not set data.root"),
        ({"data": {"options": {"root": "/etc"}}}, "must not set data.root"),
        (
            {"data": {"name": "fashion-mnist", "options": {"download": True}}},
            "must not set data.download",
        ),
        ({"data": {"download": True}}, "must not set data.download"),
        ({"data": {"workers": 100_000}}, "must not set data.workers"),
        ({"trackers": {"wandb": {"project": "x"}}}, "must not set trackers"),
        ({"data": 3}, "must be a run folder"),
        ({"model": None}, "must be a run folder"),
        ({"data": {"options": 3}}, "must be a run folder"),
        ({"uncertainty": {}}, "the folder must be of a trained run"),
    ],
)
def test_loading_checks_names_and_seeds(bench, changes, message):
    with pytest.raises(InputError, match=message):
        _ = RunFolder(edit(bench / "ce-s0", **changes)).run


def test_recipes_in_folders_and_own_names_are_fine(bench):
    run = RunFolder(
        edit(bench / "ce-s0", recipe="paper/cifar10-resnet50", loss={"name": "my.loss+2"})
    ).run
    assert (run.recipe.name, run.name) == ("paper/cifar10-resnet50", "my.loss+2-s0")


def test_a_recipe_file_cannot_name_the_folder_above():
    with pytest.raises(InputError, match=r"recipe .*plain name"):
        recipe_from_content(
            "..", {"title": "x", "data": {"name": "synthetic"}, "model": {"name": "mlp"}}
        )


def test_uncertainty_writes_nothing_elsewhere(bench, tmp_path, capsys):
    edit(bench / "ce-s0", loss={"name": "../../../../escaped"})
    before = sorted(tmp_path.rglob("*"))
    assert (
        main(["runs", "uncertainty", "deep-ensemble", str(bench / "ce-s0"), str(bench / "ls-s0")])
        == 2
    )
    assert "the loss must be a plain name" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", ["runs report", "card", "export", "runs diagnose"])
def test_data_settings_of_strangers_trigger_no_download(bench, tmp_path, command, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    monkeypatch.setattr(
        datasets, "FashionMNIST", lambda *_, **__: pytest.fail("it wants to download")
    )
    run = edit(bench / "ce-s0", data={"name": "fashion-mnist", "options": {"download": True}})
    (run / "data_root.txt").write_text(f"{tmp_path / 'chosen'}\n")
    main([command, str(run), *([] if command == "runs diagnose" else ["--replicates", "0"])])
    assert not (tmp_path / "chosen").exists()


FILES = [
    "calibrated.json", "checkpoint.pt", "config.yaml", "data.json", "data_root.txt", "environment.json", "error.txt",
    "intervals.json", "log.jsonl", "metrics.json", "predictions/test.npz", "splits.npz", "../runs.zip",
]  # fmt: skip


@pytest.mark.system
@pytest.mark.parametrize("name", FILES)
def test_pipe_or_device_is_not_read(bench, name):
    """Without a writer, opening a pipe waits forever; /dev/zero fills the memory."""
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        (bench / "ce-s0" / name).unlink(missing_ok=True)
        make(bench / "ce-s0" / name)
        with contextlib.suppress(InputError):
            collect_runs(bench)
        read_all(RunFolder(bench / "ce-s0"))


def read_all(folder):
    for read in (
        lambda: folder.config,
        lambda: folder.saved_data_root,
        lambda: folder.fingerprint,
        lambda: folder.predictions("test"),
        lambda: main(["runs", "report", str(folder.path), "--replicates", "0"]),
    ):
        with contextlib.suppress(InputError, OSError):
            read()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"options": {"hidden": [20_000, 20_000]}}},
            "must not be larger than its checkpoint",
        ),
        ({"data": {"options": {"num_train": 10**9}}}, "must have at most 200,000,000"),
    ],
)
def test_small_configuration_cannot_exhaust_memory(bench, changes, message):
    with pytest.raises(InputError, match=message):
        load_trained_run(edit(bench / "ce-s0", **changes))


@pytest.mark.parametrize("place", ["relative/place", "~/x", "", "\0", "x" * 5000])
def test_saved_data_root_must_be_absolute(bench, place):
    (bench / "ce-s0" / "data_root.txt").write_text(place)
    assert RunFolder(bench / "ce-s0").saved_data_root is None


def files_in(folder):
    return {path: path.read_bytes() for path in (folder, *folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("link", "command"),
    [
        ("ce-s0/export", ["export", "RUN", "--format", "torchscript", "--replicates", "0"]),
        (
            "ce-s0/predictions",
            [
                "runs shift",
                "RUN",
                "--save",
                "--corruptions",
                "fog",
                "--severities",
                "1",
                "--replicates=0",
            ],
        ),
        (
            "ce-s0/predictions",
            ["runs", "ood", "RUN", "--data", "digits", "--scores", "msp", "--replicates", "39"],
        ),
        ("ce-s0/predictions", ["runs train"]),
        ("ce-s0", ["bench"]),
        ("ce-s0/log.jsonl", ["runs train"]),
        ("ce-s0/.lock", ["runs train"]),
        (".trackers", ["runs train", "--track", "tensorboard"]),
        ("ce-s0", ["runs report", "BENCH", "--replicates", "39"]),
    ],
)
def test_no_link_leads_what_is_written_elsewhere(bench, tmp_path, link, command, capsys):
    path, home = bench / link, tmp_path / "home"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, home)
        shutil.rmtree(path)
    else:
        home.write_text("kept") if path.name in ("log.jsonl", ".lock") else home.mkdir()
        path.unlink(missing_ok=True)
    path.symlink_to(home)
    before = files_in(home)
    words = {"RUN": str(bench / "ce-s0"), "BENCH": str(bench)}
    given = [words.get(word, word) for word in command]
    if command[0] == "bench":
        (home / "metrics.json").unlink()
        before = files_in(home)
        settings = [word for setting in TINY for word in ("--set", setting)]
        given = [
            "bench",
            "synthetic",
            "--losses",
            "ce",
            "--seeds",
            "0",
            "--out",
            str(bench),
            *settings,
        ]
    if command[0] == "runs train":
        (bench / "ce-s0" / "metrics.json").unlink()
        settings = [word for setting in TINY for word in ("--set", setting)]
        given = [
            "runs train",
            "synthetic",
            "--loss",
            "ce",
            "--out",
            words["RUN"],
            *settings,
            *command[1:],
        ]
    status = main(given)
    assert files_in(home) == before
    assert status == (0 if command[0] == "runs report" else 2)
    assert status == 0 or "the path must be below" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        "evaluate",
        "runs diagnose",
        "card",
        "export",
        "runs report",
        "runs ood",
        "runs pack",
        "runs shift",
    ],
)
def test_too_long_name_gives_one_line_error(command, capsys):
    assert main([command, "a" * 300]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "File name too long" in line


def test_columns_are_for_files(bench, capsys):
    assert main(["card", str(bench / "ce-s0"), "--logits", "z*"]) == 2
    assert "options that name columns require prediction files" in capsys.readouterr().err


@pytest.mark.parametrize("start", [Worker, lambda folder, *_: job_folder(folder)])
@pytest.mark.parametrize("link", ["", "0.log", "below/0.log"])
def test_workers_and_jobs_follow_no_link_either(tmp_path, link, start):
    name = ".workers" if start is Worker else ".slurm"
    (tmp_path / "home").mkdir()
    path = tmp_path / "bench" / name / link
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "home")
    with pytest.raises(InputError, match="the path must be below"):
        start(tmp_path / "bench", 0, None)


def test_a_pipe_is_no_log_of_a_worker(tmp_path):
    os.mkfifo(tmp_path / "0.log")
    with open_worker_log(tmp_path / "0.log") as file:
        assert file.name == os.devnull


def garbled_yaml(folder):
    (folder / "config.yaml").write_text("[")


def no_mapping(folder):
    (folder / "config.yaml").write_text("just text")


def no_json(folder):
    (folder / "metrics.json").write_text("{")


def nested_nonsense(folder):
    edit(folder, data=3)


def derived_of_nothing(folder):
    edit(folder, uncertainty="x")


def no_data(folder):
    (folder / "data.json").write_text("[")


def folder_for_file(folder):
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").mkdir()


DAMAGE = [
    garbled_yaml,
    no_mapping,
    no_json,
    nested_nonsense,
    derived_of_nothing,
    no_data,
    folder_for_file,
]


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.WARNING, logger="fedlas")
    return lambda: [
        text for record in caplog.records if "is left out" in (text := record.getMessage())
    ]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_run_is_left_out_and_named(bench, damage, told):
    damage(bench / "ls-s0")
    summary = collect_runs(bench)
    assert [run.name for run in summary.runs] == ["ce-s0"]
    assert [problem.name for problem in summary.unreadable] == ["ls-s0"]
    assert [text.partition(":")[0] for text in told()] == ["ls-s0 is left out"]


def leave_out_of(command, bench):
    """The command's words, with which it does as little as it can."""
    if command == "compare":
        shutil.copytree(bench / "ce-s0", twin := bench / "twin-s0")
        metrics = json.loads((twin / "metrics.json").read_text())
        (twin / "metrics.json").write_text(json.dumps({**metrics, "loss": "twin"}))
        edit(twin, loss={"name": "twin"})
    options = {
        "runs report": ["--replicates", "0"], "compare": ["ce:twin"], "runs diagnose": [],
        "runs ood": ["--data", "digits", "--scores", "msp", "--replicates", "39"],
    }  # fmt: skip
    return [command, str(bench), *options[command]]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("damage", [garbled_yaml, no_json])
@pytest.mark.parametrize("command", ["runs report", "compare", "runs diagnose", "runs ood"])
def test_commands_do_without_a_damaged_run(bench, command, damage, told):
    arguments = leave_out_of(command, bench)
    damage(bench / "ls-s0")
    assert main(arguments) == 0
    assert [text.partition(":")[0] for text in told()] == ["ls-s0 is left out"]


@pytest.mark.parametrize("command", ["runs diagnose", "runs ood"])
def test_late_damage_fails_only_without_other_runs(bench, command, told, capsys):
    arguments = leave_out_of(command, bench)
    (bench / "ls-s0" / "checkpoint.pt").write_bytes(b"half")
    assert main(arguments) == 0
    assert [text.partition(":")[0] for text in told()] == ["ls-s0 is left out"]
    arguments[1] = str(bench / "ls-s0")
    assert main(arguments) == 2
    assert "checkpoint" in capsys.readouterr().err


@pytest.mark.usefixtures("few_replicates")
@pytest.mark.parametrize("damage", [garbled_yaml, no_mapping, no_json, no_data])
def test_a_damaged_run_fails_alone_in_a_bench(bench, damage):
    damage(bench / "ls-s0")
    if damage is not no_json:
        (bench / "ls-s0" / "metrics.json").unlink()
    outcome = run_all(
        plan_runs(load_recipe("synthetic", TINY), losses=["ce", "ls"], seeds=[0], out=bench)
    )
    assert (outcome.finished, list(outcome.failed)) == (["ce-s0"], ["ls-s0"])
    outcome = run_all(
        plan_runs(load_recipe("synthetic", TINY), losses=["ce", "mbls"], seeds=[0], out=bench)
    )
    assert outcome.finished == ["ce-s0", "mbls-s0"]  # where it is not asked for it is no hindrance


@pytest.mark.parametrize(
    "command", ["runs report", "compare", "runs diagnose", "runs ood", "bench"]
)
@pytest.mark.parametrize("closed", [".", "predictions"])
def test_a_folder_that_may_not_be_looked_into(bench, command, closed, told, capsys):
    words = [word for setting in TINY for word in ("--set", setting)]
    asked = [
        "bench",
        "synthetic",
        "--seeds",
        "0",
        "--out",
        str(bench),
        *words,
        "--losses",
        "ce",
        "ls",
    ]
    arguments = asked if command == "bench" else leave_out_of(command, bench)
    (bench / "ls-s0" / closed).chmod(0)
    if os.access(bench / "ls-s0" / closed, os.R_OK):
        pytest.skip("root may look into any folder")
    try:
        assert main(arguments) == (command == "bench" and closed == ".")
        assert "Traceback" not in capsys.readouterr().err
        if closed == ".":
            assert {text.partition(":")[0] for text in told()} == {"ls-s0 is left out"}
    finally:
        (bench / "ls-s0" / closed).chmod(0o700)
