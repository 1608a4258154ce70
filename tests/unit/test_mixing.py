"""A model of two environments is seen from its notes, named in one line, and never signed."""

import itertools
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from builders import ROOT, make_params, refused
from hypothesis import given
from hypothesis import strategies as st

from flows.cli.status import mixing_line
from flows.project import Project
from lmeraser.core.environment import LONGEST, Environment, as_line, differing, environment, fingerprint, grouped
from lmeraser.core.errors import ProjectError, VerificationError
from lmeraser.core.layout import Layout
from lmeraser.data.tensors import write_tensors
from lmeraser.learn.environment import network_environment
from lmeraser.learn.same_environment import require_same_environment
from lmeraser.pipeline.mixing import artifacts_environment, environments_of, mixed, noting_stages, require_one_environment

PARAMS = make_params({"parts": ["p00", "p01"], "slots": ["c00", "c01", "c02", "c03"]})
SOLVE: Environment = {"blas": "one", "libc": "1"}
NETWORK: Environment = SOLVE | {"torch": "AVX512"}
ELSEWHERE: Environment = SOLVE | {"torch": "DEFAULT"}


def write(layout: Layout, changes: dict[str, object] | None = None) -> dict[str, object]:
    """A model's notes: numpy's part alone beside router and head, c03 empty, and the changes."""
    notes: dict[str, object] = dict.fromkeys(noting_stages(layout, PARAMS), NETWORK)
    notes |= {"cluster": SOLVE, "head": SOLVE, "tune@c03": None} | (changes or {})
    for stage, path in noting_stages(layout, PARAMS).items():
        write_tensors(path, {}, {"environment": notes[stage]} if notes[stage] else {"state": "empty"})
    return notes


def test_model_of_one_environment_passes_though_some_artifacts_saw_no_network(tmp_path: Path) -> None:
    write(Layout(tmp_path))
    require_one_environment(Layout(tmp_path), PARAMS)
    assert artifacts_environment(Layout(tmp_path), PARAMS) == NETWORK
    assert "tune@c03" not in environments_of(Layout(tmp_path), PARAMS)


@pytest.mark.parametrize("stage", [stage for stage in noting_stages(Layout(Path()), PARAMS) if stage != "tune@c03"])
def test_one_artifact_of_another_environment_is_named_with_what_differs_and_how_to_mend(tmp_path: Path, stage: str) -> None:
    layout = Layout(tmp_path)
    other = write(layout)[stage]
    assert isinstance(other, dict)
    write(layout, {stage: other | {"libc": "2"}})
    line = refused(VerificationError, lambda: require_one_environment(layout, PARAMS))
    assert f" {stage} differ" in line
    assert "libc 1 / 2" in line
    assert "dvc repro --force" in line
    assert refused(VerificationError, lambda: artifacts_environment(layout, PARAMS)) == line


def test_slots_of_another_instruction_set_are_counted(tmp_path: Path) -> None:
    write(Layout(tmp_path), {"tune@c00": ELSEWHERE, "embed@p01": ELSEWHERE})
    line = refused(VerificationError, lambda: require_one_environment(Layout(tmp_path), PARAMS))
    assert "2 environments" in line
    assert "embed@p01, tune@c00 differ" in line


def test_notes_of_an_earlier_version_are_another_environment_than_todays(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write(layout, dict.fromkeys(noting_stages(layout, PARAMS), "0123456789abcdef"))
    require_one_environment(layout, PARAMS)
    write(layout, {"pretrain": "0123456789abcdef"})
    assert "pretrain differ" in refused(VerificationError, lambda: require_one_environment(layout, PARAMS))


def test_status_names_artifacts_of_another_environment_and_is_silent_without_a_whole_model(tmp_path: Path) -> None:
    project = Project(Layout(tmp_path))
    shutil.copy(ROOT / "params.yaml", project.layout.params)
    assert mixing_line(project) is None
    write(project.layout, {"embed@p01": ELSEWHERE})
    line = mixed(environments_of(project.layout, PARAMS))
    assert line is not None
    assert mixing_line(cast(Project, SimpleNamespace(layout=project.layout, params=PARAMS))) == line
    project.layout.head.unlink()
    assert mixing_line(project) is None


def test_missing_artifact_is_refused_not_overlooked(tmp_path: Path) -> None:
    write(Layout(tmp_path))
    Layout(tmp_path).tuned("c01").unlink()
    refused(ProjectError, lambda: require_one_environment(Layout(tmp_path), PARAMS))


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.sampled_from([SOLVE, NETWORK, ELSEWHERE, {"libc": "2"}])))
def test_groups_are_a_partition_in_which_all_agree_whatever_the_order(made_in: dict[str, Environment]) -> None:
    groups = grouped(made_in)
    assert sorted(name for _, names in groups for name in names) == sorted(made_in)
    for union, names in groups:
        assert all(not differing(made_in[first], made_in[second]) for first, second in itertools.combinations(names, 2))
        assert all(not differing(union, made_in[name]) for name in names)
    again = grouped(dict(reversed(made_in.items())))
    assert len(again) == len(groups)


def test_erasure_in_another_environment_is_refused_before_it_retrains_and_torch_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, here = Layout(tmp_path), network_environment("cpu")
    write(layout, dict.fromkeys(noting_stages(layout, PARAMS), here))
    require_same_environment(layout, PARAMS)
    assert (layout.private_state / "environment.json").stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr("lmeraser.learn.same_environment.network_environment", lambda _: pytest.fail("asked twice"))
    require_same_environment(layout, PARAMS)
    write(layout, dict.fromkeys(noting_stages(layout, PARAMS), here | {"torch_instructions": "VSX"}))
    line = refused(VerificationError, lambda: require_same_environment(layout, PARAMS))
    assert "torch_instructions VSX / " in line
    assert "dvc repro --force" in line
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    with pytest.raises(pytest.fail.Exception):
        require_same_environment(layout, PARAMS)


def test_values_fit_a_certificate_and_name_no_processor() -> None:
    facts = network_environment("cpu")
    assert all(value.isprintable() and 0 < len(value) <= LONGEST for value in facts.values())
    assert environment().items() <= facts.items()
    assert fingerprint(facts) != fingerprint(environment())
    assert as_line("two\nlines").startswith("sha256 ")
    assert as_line("x" * 501).startswith("sha256 ")
    info = Path("/proc/cpuinfo")
    names = (
        {line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")}
        if info.exists()
        else set()
    )
    assert not names & set(facts.values())
