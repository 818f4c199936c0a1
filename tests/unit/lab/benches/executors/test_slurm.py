"""A Slurm of shell scripts: `sbatch` runs each job of an array, one after the other, in the background."""

import os
import re

import pytest

from fedlas.errors import InputError
from fedlas.lab.benches.executors import SlurmExecutor, slurm

pytest.importorskip("submitit")

SBATCH = """#!/bin/bash
set -e
cp "$1" "$FAKE/script.sh"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
(
  sleep 0.5  # submitit moves its files into place meanwhile
  for task in $(seq 0 ${last:-0}); do
    export SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_JOB_ID=77 SLURM_JOB_ID=77$task
    bash "$FAKE/script.sh"
  done
) >"$FAKE/output" 2>&1 &
echo "Submitted batch job 77"
"""
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do
  case "$1" in --output|--error) shift 2;; *) shift;; esac
done
export SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_JOB_NODELIST=a
exec "$@"
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in {
        "sbatch": SBATCH,
        "srun": SRUN,
        "sacct": "#!/bin/bash\necho 'JobID|State|NodeList'\n",
        "scancel": '#!/bin/bash\necho "$@" >> "$FAKE/canceled"\n',
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(folder))
    return folder


def flags(text):
    """Options of a script, but for where its logs go."""
    found = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE))
    return {
        key: value
        for key, value in found.items()
        if key not in ("output", "error", "signal", "wckey")
    }


OPTIONS = {
    "workers": 1, "gpus_per_run": 2, "cpus_per_run": 8, "minutes": 90, "setup": ["module load cuda"],
    "sbatch": {"partition": "gpu", "account": "us", "mem": "32GB", "reservation": "mon day"},
}  # fmt: skip


@pytest.mark.system
@pytest.mark.filterwarnings("ignore::DeprecationWarning:submitit")
def test_submitted_jobs_are_waited_for(cluster, tmp_path, tasks, told):
    some = tasks(tmp_path / "out", "synthetic", ["ce"], "model.hidden=[8]")
    bad = tasks(
        tmp_path / "out",
        "synthetic",
        ["mbls"],
        "model.hidden=[8]",
        "optimizer.lr=1e30",
        "train.epochs=3",
    )
    cpu = {**OPTIONS, "gpus_per_run": 0, "cpus_per_run": 1}
    seen = told()
    results = {r.name: r for r in SlurmExecutor(**cpu).results([*some, *bad], seen)}
    assert "accuracy" in results["ce-s0"].line
    assert "loss and logits must stay finite" in results["mbls-s0"].error
    assert seen.names == ["ce-s0", "mbls-s0"]
    assert "submitted as Slurm job 77" in seen.texts[0]
    submitted = (cluster / "script.sh").read_text()
    options = flags(submitted)
    assert options | {
        "cpus-per-task": "1", "time": "90", "partition": "gpu", "account": "us", "mem": "32GB", "array": "0-1%1",
        "job-name": "fedlas-synthetic", "requeue": "",
    } == options  # fmt: skip
    assert "module load cuda" in submitted
    assert not (cluster / "canceled").exists()


def test_killed_job_fails_without_slurm_accounting(cluster, tmp_path, tasks, told, monkeypatch):
    (cluster / "sbatch").write_text('#!/bin/bash\necho "Submitted batch job 5"\n')
    (cluster / "squeue").write_text("#!/bin/bash\necho 4_1\n")
    (cluster / "squeue").chmod(0o755)
    monkeypatch.setattr(slurm, "_POLLS_PER_QUEUE_CHECK", 1)
    monkeypatch.setattr(slurm.time, "sleep", lambda _: None)
    some = tasks(tmp_path / "out", "synthetic", ["ce", "ls"])
    results = list(SlurmExecutor(gpus_per_run=0).results(some, told()))
    reason = (
        r"Slurm job 5_\d ended without a result: killed or canceled; its output is in .*log\.out"
    )
    assert all(re.fullmatch(reason, result.error) for result in results)
    assert [result.name for result in results] == ["ce-s0", "ls-s0"]
    assert "killed or canceled" in (some[1].run.folder / "error.txt").read_text()
    (cluster / "squeue").write_text("#!/bin/bash\nexit 1\n")
    assert slurm.queued_job_ids() is None


def test_stopping_cancels_and_not_waiting_does_not(cluster, tmp_path, tasks, told, monkeypatch):
    (cluster / "sbatch").write_text('#!/bin/bash\necho "Submitted batch job 5"\n')
    some = tasks(tmp_path / "out", "synthetic", ["ce", "ls"])

    class Interrupted(told):
        def on_idle(self):
            raise KeyboardInterrupt

    seen = told()
    assert list(SlurmExecutor(wait=False).results(some, seen)) == []
    assert "fedlas runs report" in seen.texts[-1]
    assert not (cluster / "canceled").exists()
    assert list((tmp_path / "out" / ".slurm").glob("*.pkl"))  # as SECURITY.md says
    interrupted = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        list(SlurmExecutor().results(some, interrupted))
    assert (cluster / "canceled").read_text().split() == ["5_0", "5_1"]
    assert interrupted.texts[-1] == "canceled 2 Slurm jobs of 5"


def test_rejected_jobs_raise_input_error(cluster, tmp_path, tasks, told):
    """A wrong partition was a traceback of submitit."""
    text = "sbatch: error: invalid partition specified: gpus"
    (cluster / "sbatch").write_text(f"#!/bin/bash\necho '{text}' >&2\nexit 1\n")
    with pytest.raises(InputError, match=r"Slurm must accept the jobs; got .*invalid partition"):
        list(SlurmExecutor().results(tasks(tmp_path, "synthetic", ["ce"]), told()))


def test_no_slurm_here(tmp_path, tasks, told, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"Slurm must be installed on this machine.*got no srun"):
        list(SlurmExecutor().results(tasks(tmp_path, "synthetic", ["ce"]), told()))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"gpus_per_run": 0.5}, "gpus_per_run must be a whole number"),
        ({"minutes": 0}, "minutes must be a whole number"),
        ({"setup": "module load cuda"}, r"setup must be a list .*setup=\[module load cuda\]"),
        ({"sbatch": "x"}, "sbatch must map"),
    ],
)
def test_options_that_cannot_be(options, text):
    with pytest.raises(InputError, match=text):
        SlurmExecutor(**options)
