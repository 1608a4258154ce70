"""The whole service with a real server, workers and deployments: from an event to a certificate, behind a password."""

import json
import uuid
from pathlib import Path

import preloading
import pytest
from sandbox import CANARY, Sandbox, refused
from service import Service, served, wait

pytestmark = pytest.mark.slow


def left_running(project: Sandbox) -> list[str]:
    """Processes that still serve the project."""
    pids = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cwd").resolve() == project.root and b"python" in (path / "cmdline").read_bytes():
                pids.append(path.name)
        except OSError:
            continue
    return pids


@pytest.mark.timeout(1800)  # minutes of real processes; a loaded machine takes several times as long as a quiet one
def test_from_events_to_certificates_each_accepted_request_exactly_once(project: Sandbox) -> None:
    people = project.people()
    groups = [[people[0]], people[1:3], people[3:8], [people[8]], [people[9]]]
    groups += [[person] for person in people[10 : 24 if preloading.cold() else 10]]
    with served(project) as service:
        # First: while an erasure rewrites the parts, who is unknown cannot be told, and the answer comes once it is over.
        refused(project.lmeraser("submit", "--subject", "nobody"), 2)
        refused(project.lmeraser("submit", "--subject", project.people("public")[0]), 3)
        accepted = [project.json("submit", "--subject", *group)["request_id"] for group in groups]
        # Again with the same id, and by a second event that names a person.
        project.json("submit", "--subject", *groups[2], "--request-id", accepted[2])
        assert service.event({"request_id": accepted[0], "name": groups[0][0]}, accepted[0]) < 300
        wait(lambda: all(service.states()[request] == "certified" for request in accepted), 600, "every certificate")
        states = service.states()
        assert sorted(states.values()) == sorted(["certified"] * len(accepted) + ["rejected", "blocked"])
        strangers(service)
        events(service, people[25])
        wait(lambda: all(run["state_type"] == "COMPLETED" for run in service.runs()), 300, "the end of every run")
    assert left_running(project) == []
    certificates = sorted((project.root / "certificates").glob("*.json"))
    listed = [path.name[6:-5] for path in certificates]
    assert len(listed) == len(set(listed))
    assert set(accepted) < set(listed)
    project.json("verify", *map(str, certificates), "--head", str(project.root / "certificates" / "HEAD"))
    audit = project.json("audit", "--rebuild", "--stores")
    assert (audit["equal"], audit["clean"]) == (True, True)
    # Nobody's name is in Prefect's database, its storage or any log.
    for path in (project.root / ".lmeraser").rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path.name


def strangers(service: Service) -> None:
    """Without the password nobody can submit, read or approve."""
    run = service.runs()[0]["id"]
    assert service.event({"request_id": str(uuid.uuid4())}, "x", auth=False) == 401
    for path in ("/flow_runs/filter", "/events/filter", f"/flow_runs/{run}/resume", "/artifacts/filter"):
        assert service.post(path, {}, auth=False)[0] == 401, path
    secret = service.project.root / ".lmeraser" / "server.auth"
    assert secret.stat().st_mode & 0o077 == 0


def events(service: Service, person: str) -> None:
    """A malformed event starts nothing, and what it names stays nowhere; a lost one is made up for by the sweep."""
    before = len(service.runs())
    assert service.event({}, "missing") < 300
    assert service.event({"request_id": f"{person}-no-uuid", "name": person}, f"{person}-too") < 300
    hidden = service.project.root / ".lmeraser" / "server.json"
    kept = hidden.read_bytes()
    hidden.unlink()  # the event is lost
    lost = service.project.json("submit", "--subject", person)["request_id"]
    hidden.write_bytes(kept)
    wait(lambda: service.states()[lost] == "certified", 900, "the sweep", lambda: (service.ways("sweep"), service.ways("forget")))
    assert len(service.runs()) == before + 1


@pytest.mark.campaign("three minutes; approval in process: unit/test_pause_histories.py")
def test_request_that_needs_approval_waits_until_somebody_gives_it_and_the_ledger_says_who(project: Sandbox) -> None:
    project.set_params(service={"approval": True})
    person, other = project.people()[:2]
    with served(project, "--warm", "0", "--workers", "0") as service:
        waiting = project.json("submit", "--subject", person)
        assert waiting["state"] == "validated"

        def suspended(request_id: str) -> bool:
            runs = [run for run in service.runs() if run["name"] == f"forget-{request_id}"]
            return bool(runs) and runs[0]["state_type"] == "PAUSED"

        wait(lambda: suspended(waiting["request_id"]), 300, "the suspension")
        assert service.states()[waiting["request_id"]] == "validated"
        project.json("approve", waiting["request_id"], "--by", "the officer")
        wait(lambda: service.states()[waiting["request_id"]] == "certified", 300, "the certificate")
        # The other way: by the form of the run, as the UI fills it.
        second = project.json("submit", "--subject", other)["request_id"]
        wait(lambda: suspended(second), 300, "the suspension")
        run = next(run for run in service.runs() if run["name"] == f"forget-{second}")
        form = {"run_input": {"approved_by": "the other officer"}}
        # Prefect's SQLite says now and then that it is locked, under load: a person would press the button again.
        wait(lambda: service.post(f"/flow_runs/{run['id']}/resume", form)[0] < 300 or not suspended(second), 60, "the approval")
        wait(lambda: service.states()[second] == "certified", 300, "the certificate")
    code = (
        "import json,sys; from flows.project import Project; l=Project.find().ledger;"
        "print(json.dumps([[by for _, by in l.words(e.request_id)] for e in l.events() if e.kind=='approved']))"
    )
    assert json.loads(project.python("-c", code).stdout) == [["the officer"], ["the other officer"]]
