"""Prefect stores the text of a run that failed: no flow hands it a path or a name."""

import importlib
from inspect import signature
from typing import Any

import pytest
import yaml
from builders import CANARY_PATH, ROOT

from flows.project import Project
from lmeraser.core.errors import BadInputError, LmeraserError

GIVEN: dict[str, dict[str, Any]] = {
    "forget": {"request_id": "0b9e2c5e-6a0f-4a53-9a55-0c7f6d0a1b2c"},
    "run_stages": {"job_id": "0b9e2c5e.00000000", "stages": ["tune@c00"]},
    "tune_cluster": {"batch_id": "0b9e2c5e", "slot": "c00"},
}


def flows() -> list[tuple[str, str]]:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    named = sorted({str(each["entrypoint"]) for each in deployments})
    return [(path.removesuffix(".py").replace("/", "."), name) for path, _, name in (entry.partition(":") for entry in named)]


@pytest.mark.parametrize("error", [BadInputError(f"images: {CANARY_PATH} is odd"), ValueError(f"/home/{CANARY_PATH}")])
@pytest.mark.parametrize(("module", "name"), flows())
def test_errors_of_every_flow_are_without_words_of_anybody(
    module: str, name: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Project:
        raise error

    monkeypatch.setattr(Project, "find", fail)
    flow = getattr(importlib.import_module(module), name)
    assert set(signature(flow.fn).parameters) >= set(GIVEN.get(name, {}))
    with pytest.raises(LmeraserError) as caught:
        flow.fn(**GIVEN.get(name, {}))
    assert "CANARY" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_every_deployment_is_looked_at() -> None:
    names = "build forget sweep audit audit_part audit_due upkeep run_stages tune_cluster"
    assert {name for _, name in flows()} == set(names.split())
