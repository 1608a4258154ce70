"""Variables of the shell do not reach bits; those that an operator pins do, and are seen; a process that began wrong refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import ROOT, Lab
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core import determinism
from lmeraser.core.determinism import FOREIGN, HARMLESS, PINS, SETTINGS, settled
from lmeraser.core.environment import differing
from lmeraser.learn.environment import network_answers
from lmeraser.serve.picture import draw_overview

HOSTILE = {
    "OMP_NUM_THREADS": "2",
    "OPENBLAS_NUM_THREADS": "2",
    "OPENBLAS_BLOCK_FACTOR": "2",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_NUM_THREADS": "2",
    "KMP_AFFINITY": "disabled",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "TIMM_FUSED_ATTN": "0",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "NVIDIA_TF32_OVERRIDE": "1",
    "SCIPY_ARRAY_API": "1",
    "MATPLOTLIBRC": "/nowhere",
}
names = st.one_of(
    st.sampled_from([*PINS, *HARMLESS, *SETTINGS, *HOSTILE, "PATH", "HOME"]),
    st.builds(str.__add__, st.sampled_from([*FOREIGN, "LC_", "DVC_"]), st.text("ABC_", max_size=4)),
)
SAYS = """
import hashlib, json, sys
from pathlib import Path
{first}
from lmeraser.core.params import Params
from lmeraser.clusters.skeleton import load_skeleton
from lmeraser.learn.backbone import load_backbone, make_deterministic
from lmeraser.learn.environment import network_environment
from lmeraser.learn.tuning import tune_cluster
import builders

params = Params.model_validate_json(Path("params.json").read_text())
make_deterministic("cpu")
backbone, skeleton = load_backbone(Path("backbone.safetensors"), params), load_skeleton(Path("skeleton.safetensors"))
ids, pixels, labels = builders.striped(40, seed=3)
model = tune_cluster(ids, pixels, labels, backbone, skeleton, params, "c00")
parts = [model.frame, model.weight, model.bias, backbone.features(pixels, 16)]
print(json.dumps([hashlib.sha256(b"".join(one.tobytes() for one in parts)).hexdigest(), network_environment("cpu")]))
"""


def printed_json(code: str, variables: dict[str, str], cwd: Path = ROOT) -> Any:
    """What code prints as JSON in a process of its own, with no variable of ours but those given."""
    kept = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | {"PYTHONPATH": path} | variables,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@given(st.dictionaries(names, st.text("01,x", max_size=4)))
def test_what_a_shell_sets_reaches_the_libraries_only_where_it_is_a_pin(given_variables: dict[str, str]) -> None:
    after = settled(given_variables)
    assert {name: after[name] for name in SETTINGS} == dict(SETTINGS)
    left = {name for name in after if name.startswith(FOREIGN)}
    assert left <= {*PINS, *HARMLESS, *SETTINGS}
    kept = {name: value for name, value in given_variables.items() if name in PINS or not name.startswith(FOREIGN)}
    assert kept.items() <= after.items()
    assert settled(after) == after


@pytest.mark.parametrize(
    "name", sorted(HOSTILE.keys() | {"OMP_PROC_BIND", "GOMP_SPINCOUNT", "MKL_ENABLE_INSTRUCTIONS", "CUDNN_LOGINFO_DBG"})
)
def test_variable_that_is_known_to_choose_kernels_is_gone_or_ours(name: str) -> None:
    assert settled({name: "7", "HOME": "/home"}).get(name) == SETTINGS.get(name)


@pytest.mark.slow
def test_command_line_gives_the_stages_bits_whatever_the_shell_sets(lab: Lab, tmp_path: Path) -> None:
    """`predict` asks and `audit --membership` trains in the process of the command line."""
    from lmeraser.clusters.skeleton import save_skeleton

    (tmp_path / "params.json").write_text(lab.params.model_dump_json())
    (tmp_path / "backbone.safetensors").write_bytes(lab.backbone_file.read_bytes())
    save_skeleton(tmp_path / "skeleton.safetensors", lab.skeleton, {})
    stage = printed_json(SAYS.format(first="import stages.tune"), {}, tmp_path)
    command = printed_json(SAYS.format(first="import flows.cli, flows.audit.membership"), HOSTILE, tmp_path)
    assert command == stage


@pytest.mark.slow
def test_pin_that_torch_obeys_is_another_environment() -> None:
    code = "import json, stages\nfrom lmeraser.learn.environment import network_environment as f\nprint(json.dumps(f('cpu')))"
    plain = printed_json(code, {})
    assert differing(plain, printed_json(code, {"ATEN_CPU_CAPABILITY": "default"}))
    assert differing(plain, printed_json(code, {"ONEDNN_MAX_CPU_ISA": "SSE41"}))


PINNED = {
    "OPENBLAS_CORETYPE": "Prescott",
    "OPENBLAS_L2_SIZE": "768",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4",
    "GLIBC_TUNABLES": "glibc.malloc.check=0",
}


@pytest.mark.slow
def test_pin_that_numpy_or_the_c_library_obeys_is_another_environment() -> None:
    code = "import json, stages\nfrom lmeraser.core.environment import environment as f\nprint(json.dumps(f()))"
    plain = printed_json(code, {})
    for pin, value in PINNED.items():
        if plain["machine"] in ("x86_64", "AMD64"):
            assert differing(plain, printed_json(code, {pin: value})), pin
    assert differing(plain, printed_json(code, HOSTILE)) == []


REFUSES = """
import json, numpy
from lmeraser.core.errors import StepFailedError
from lmeraser.core.environment import environment
try:
    environment()
except StepFailedError as error:
    print(json.dumps(str(error)))
"""


COMMAND = """
import json, numpy, sys
import flows.cli
try:
    flows.cli.main(["status"])
except SystemExit as end:
    print(json.dumps(end.code))
"""


def test_process_that_imported_numpy_under_other_settings_computes_nothing() -> None:
    line = printed_json(REFUSES, {"OMP_NUM_THREADS": "2"})
    assert "OMP_NUM_THREADS" in line
    assert "\n" not in line
    assert printed_json(COMMAND, {"KMP_BLOCKTIME": "0"}) == 1


def test_variables_that_a_library_sets_itself_are_no_reason_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMP_AFFINITY", "disabled")
    determinism.require()
    assert os.environ["KMP_AFFINITY"] == "disabled", "nothing reads it any more"


def test_settling_imports_no_library_and_costs_nothing() -> None:
    code = "import sys, json\nimport lmeraser.core.determinism as d\nd.settle()\n"
    assert printed_json(code + "print(json.dumps([name for name in d.LIBRARIES if name in sys.modules]))", {}) == []


def test_overview_does_not_depend_on_a_users_matplotlibrc() -> None:
    import matplotlib
    import pandas as pd

    metrics = {"accuracy": dict.fromkeys(("served", "clusters_soft", "clusters_hard", "global_head", "linear_head"), 0.5)}
    clusters = pd.DataFrame({"slot": ["c00", "c01"], "records": [5.0, 7.0], "accuracy": [0.5, 0.4]})
    plain = draw_overview(metrics, clusters)
    with matplotlib.rc_context({"font.size": 20, "savefig.dpi": 30, "figure.facecolor": "red", "axes.grid": True}):
        assert draw_overview(metrics, clusters) == plain
        assert matplotlib.rcParams["font.size"] == 20


def test_known_answers_show_one_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    from lmeraser.core import environment

    before = environment.known_answers.__wrapped__()
    assert before == environment.known_answers.__wrapped__()
    cos = np.cos
    monkeypatch.setattr(np, "cos", lambda values: np.nextafter(cos(values), 2))
    assert environment.known_answers.__wrapped__() != before


def test_answers_of_the_network_are_asked_under_the_stages_switches_which_torch_then_forgets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch
    from torch.nn import functional

    def switches() -> list[bool]:
        return [
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.benchmark,
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.allow_tf32,
        ]

    seen: list[list[bool]] = []
    convolve = functional.conv2d

    def watched(*arguments: Any, **named: Any) -> torch.Tensor:
        seen.append(switches())
        return convolve(*arguments, **named)

    monkeypatch.setattr(functional, "conv2d", watched)
    kept = switches()
    try:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        network_answers("cpu")
        assert switches() == [False, True, True, True]
    finally:
        torch.use_deterministic_algorithms(kept[0])
        torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept[1:]
    assert seen
    assert all(switched == [True, False, False, False] for switched in seen)
