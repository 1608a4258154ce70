"""Immediate effect: what is served leaves people out from the acceptance of their request, before any retraining."""

import json
from pathlib import Path

import pytest
from preloading import COLD
from sandbox import Sandbox

from lmeraser.core.layout import Layout
from lmeraser.core.params import load_params
from lmeraser.pipeline.locks import read_outs
from lmeraser.serve.quarantine import read_quarantine

pytestmark = pytest.mark.slow


def test_accepted_request_is_in_effect_before_anything_is_retrained(project: Sandbox) -> None:
    layout = Layout(project.root)
    person = project.people()[0]
    rows = project.manifest
    image = str(project.root / "people" / rows.loc[rows["subject"] == person, "path"].iloc[0])
    outs = read_outs(layout.lock)
    plan = project.json("plan", "--subject", person)
    # Plan and acceptance look the same way; pandas, which one call of pyarrow's would import, were most of the time until then.
    imported = project.python("-X", "importtime", "-m", "flows.cli", "plan", "--subject", person, env=COLD).stderr
    assert "pyarrow.parquet" in imported
    assert "pandas.core" not in imported
    summary = project.json("submit", "--subject", person)
    assert summary["state"] == "quarantined"
    assert read_outs(layout.lock) == outs, "nothing was retrained"
    quarantine = read_quarantine(layout)
    assert quarantine is not None
    assert (quarantine.slots, quarantine.head) == (plan["slots_retrained"], "interim")
    interim = quarantine.head_file(layout)
    assert interim is not None
    solved = interim.read_bytes()
    project.json("predict", image)
    from lmeraser.serve.serving import ServedModel

    serving = ServedModel.load_served(layout, load_params(layout.params))
    assert set(serving.slots).isdisjoint(plan["slots_retrained"])
    assert serving.slots, "the router falls to the next cluster"
    # The head that answers meanwhile is, byte for byte, the one that stays.
    assert project.json("resume")["finished"][0]["state"] == "certified"
    assert layout.head.read_bytes() == solved
    assert read_quarantine(layout) is None
    assert not (project.root / ".lmeraser" / "quarantine").exists()


def test_model_withheld_while_the_backbone_itself_must_forget(project: Sandbox) -> None:
    person = project.people("public")[0]
    summary = project.json("submit", "--subject", person, "--include-public")
    assert summary["state"] == "quarantined"
    image = next((project.root / "people" / "images").iterdir())
    refusal = project.lmeraser("predict", str(image))
    assert refusal.returncode == 2
    assert "withheld" in refusal.stderr


@pytest.mark.campaign("in process: unit/test_forgetting.py")
def test_request_that_comes_during_another_s_erasure_is_in_effect_too(project: Sandbox) -> None:
    layout = Layout(project.root)
    first, second = project.people()[0], project.people()[-1]
    project.json("submit", "--subject", first)
    project.json("submit", "--subject", second)
    quarantine = read_quarantine(layout)
    assert quarantine is not None
    wanted = {slot for person in (first, second) for slot in _slots_of(project, person)}
    assert set(quarantine.slots) == wanted
    finished = project.json("resume")["finished"]
    assert [request["state"] for request in finished] == ["certified", "certified"]
    assert finished[0]["slots_retrained"] == sorted(wanted), "they shared one retraining"
    events = json.loads(
        project.python(
            "-c",
            "import json; from flows.project import Project; l = Project.find().ledger;"
            "print(json.dumps([r.batch_id for r in l.all()]))",
        ).stdout
    )
    assert len(set(events)) == 1


def _slots_of(project: Sandbox, person: str) -> list[str]:
    """Clusters that hold a record of somebody, read from the files of the build."""
    from lmeraser.clusters.files import load_members, load_sizes
    from lmeraser.data.records import read_records

    layout = Layout(project.root)
    params = load_params(layout.params)
    own = {record.id for part in params.parts for record in read_records(layout.part(part)) if record.subject == person}
    slots = [size.slot for size in load_sizes(layout.clusters)]
    return [slot for slot in slots if any(member.id in own for member in load_members(layout.members(slot)))]


@pytest.mark.campaign("a minute; in process: unit/test_forks.py and unit/test_warm.py; in a service: test_service.py")
def test_warm_process_makes_the_same_bytes_and_the_next_request_finds_it_warm(project: Sandbox, tmp_path: Path) -> None:
    import os
    import shutil
    import subprocess
    import sys
    import time

    import preloading

    people = project.people()[3:5]
    shutil.copytree(project.root, tmp_path / "cold", symlinks=True)
    cold = Sandbox(tmp_path / "cold")
    layout = Layout(project.root)
    layout.warm.mkdir(parents=True, mode=0o700)
    socket = layout.warm / "0.sock"
    warm = subprocess.Popen(
        [sys.executable, "-m", "stages.runtime.warm", str(socket)],
        cwd=project.root,
        env=os.environ | {"PYTHONPATH": str(project.root)},
        stderr=subprocess.PIPE,
        text=True,
    )
    forks = subprocess.Popen(
        [sys.executable, "-m", "flows.forks.server", str(layout.forks)],
        cwd=project.root,
        env=preloading.variables(os.environ),  # what a command's process starts with, as its own caller has it
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (socket.exists() and layout.forks.exists()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for person in people:
            project.json("forget", "--subject", person)
            cold.json("forget", "--subject", person)
            assert warm.poll() is None
        assert read_outs(layout.lock) == read_outs(cold.root / "dvc.lock")
        project.dvc("repro")
        assert read_outs(layout.lock) == read_outs(cold.root / "dvc.lock"), "plain DVC finds nothing left to do"
    finally:
        warm.kill()
        assert warm.stderr is not None
        said = warm.stderr.read()
        warm.wait()
        forks.kill()
        commands = forks.communicate()[1]
    assert said.count("stages in") == len(people), "it did the work"
    # The request; of DVC: the recording, and whether what changed is up to date; the scan. Whether all is, the first alone asks.
    assert commands.count("a command in") == commands.count("status 0")
    assert commands.count("a command in") == 4 * len(people) + 1
