"""Who trains where: one process a core, or one a GPU that sees no other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders import make_params

from flows import processes
from flows.run import devices
from flows.run import warm_client as warm
from lmeraser.core.layout import Layout

CPU, CUDA = make_params(), make_params({"device": "cuda"})


def test_on_the_cpu_each_core_has_a_process_and_no_gpu_is_named() -> None:
    assert devices.processes(CPU) == len(os.sched_getaffinity(0))
    assert devices.gpus(CPU) == 0
    assert devices.place(3, 0) == {}


def test_each_gpu_has_a_process_that_sees_it_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "gpus", lambda params: 3 if params.device == "cuda" else 0)
    assert devices.processes(CUDA) == 3
    seen: list[str | None] = []

    def start(command: list[str], layout: Layout, extra: dict[str, str], **pipes: object) -> "subprocess.Popen[str]":
        seen.append(extra.get("CUDA_VISIBLE_DEVICES"))
        return subprocess.Popen([sys.executable, "-c", ""], text=True)

    monkeypatch.setattr(processes, "start", start)
    warm.run_chains(Layout(tmp_path), [["tune@c00"], ["tune@c01"], ["tune@c02"]], gpus=3)
    assert sorted(str(device) for device in seen) == ["0", "1", "2"]
    seen.clear()
    warm.run_chains(Layout(tmp_path), [["tune@c00"], ["tune@c01"]])
    assert seen == [None, None]


def test_variable_of_a_command_is_its_own_alone(tmp_path: Path) -> None:
    before = dict(os.environ)
    show = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"
    command, variables = [sys.executable, "-c", show], {"CUDA_VISIBLE_DEVICES": "7"}
    process = processes.start(command, Layout(tmp_path), variables, stdout=subprocess.PIPE)
    assert process.communicate()[0].strip() == "7"
    assert dict(os.environ) == before
