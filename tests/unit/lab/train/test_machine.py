from pathlib import Path

import pytest
import torch

from fedlas.errors import InputError
from fedlas.lab.train import TrainConfig, describe_precision, resolve_for_device

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def processor(monkeypatch):
    """``processor(amx=..., avx512_bf16=...)``: what torch says the processor has."""

    def has(amx=False, avx512_bf16=False):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
        monkeypatch.setattr(
            torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16, raising=False
        )

    return has


@pytest.mark.parametrize(
    ("units", "note"),
    [
        ({"amx": True}, "; the processor has AMX: with --precision bf16 "),
        ({"avx512_bf16": True}, "; the processor has AVX512-BF16: with --precision bf16 "),
        ({"amx": True, "avx512_bf16": True}, "; the processor has AMX and AVX512-BF16: with "),
        ({}, ")"),
    ],
)
def test_every_processor_gets_fp32(processor, units, note):
    """A note recommends bf16 where it is faster; numbers do not depend on the processor."""
    processor(**units)
    assert resolve_for_device(TrainConfig(), CPU).precision == "fp32"
    told = describe_precision("fp32", "auto", CPU)
    assert told.startswith(f"fp32 (auto: as on every processor{note}")
    assert describe_precision("fp32", "fp32", CPU) == "fp32 (of the recipe)"


def test_old_torch_without_checks_recommends_nothing(monkeypatch):
    for question in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, question, raising=False)
    assert describe_precision("fp32", "auto", CPU) == "fp32 (auto: as on every processor)"


@pytest.mark.skipif(
    not hasattr(torch.cpu, "_is_avx512_bf16_supported"), reason="this torch does not tell"
)
@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="Linux tells in a file")
def test_the_operating_system_agrees():
    flags = Path("/proc/cpuinfo").read_text().split()
    recommends = "--precision bf16" in describe_precision("fp32", "auto", CPU)
    assert recommends == bool({"amx_tile", "avx512_bf16"} & set(flags))


@pytest.mark.parametrize("native", [True, False])
def test_gpu_is_asked_without_emulation(monkeypatch, native):
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.no_grad())
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    precision = resolve_for_device(TrainConfig(), CUDA).precision
    assert precision == ("bf16" if native else "fp32")
    assert describe_precision(precision, "auto", CUDA).startswith(f"{precision} (auto: Some GPU ")


def test_only_what_is_open_is_decided():
    for precision in ("fp32", "bf16"):
        for layout in (True, False):
            config = TrainConfig(precision=precision, channels_last=layout)
            assert resolve_for_device(config, CPU) == config
    assert resolve_for_device(TrainConfig(precision="fp32"), CPU).channels_last is True
    assert resolve_for_device(TrainConfig(), torch.device("mps")) == TrainConfig(
        precision="fp32", channels_last=False
    )


def test_bf16_without_autocast_is_refused(monkeypatch):
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda kind: False)
    with pytest.raises(InputError, match=r"autocast; got mps.* --precision fp32"):
        resolve_for_device(TrainConfig(precision="bf16"), torch.device("mps"))
    assert (
        resolve_for_device(TrainConfig(precision="fp32"), torch.device("mps")).precision == "fp32"
    )


def test_text_says_what_and_why(processor):
    processor(avx512_bf16=True)
    assert describe_precision("bf16", "auto", CPU) == "bf16 (auto: as the run began)"
    assert describe_precision("fp32", "fp32", CPU) == "fp32 (of the recipe)"
    assert describe_precision("bf16", "bf16", CPU) == "bf16 (of the recipe)"
    processor()
    assert describe_precision("fp32", "fp32", CPU) == "fp32 (of the recipe)"
    assert (
        describe_precision("bf16", "bf16", CPU)
        == "bf16 (of the recipe; emulated here, which is slow)"
    )
