"""Proposals on a real project: who left the source, and a record past its time, leave every store once they are accepted."""

import pytest
from sandbox import Sandbox

pytestmark = pytest.mark.slow


@pytest.mark.campaign("in process: unit/test_proposals.py")
def test_who_left_the_source_and_what_expired_are_proposed_by_build_and_upkeep_and_leave_every_store(project: Sandbox) -> None:
    first, second = project.people()[:2]
    rows = project.manifest
    rows = rows[rows["subject"] != first]
    path = rows.loc[(rows["subject"] == second) & (rows["split"] == "train"), "path"].iloc[0]
    rows.assign(taken=["2020-01-01" if each == path else "" for each in rows["path"]]).to_csv(
        project.root / "people" / "manifest.csv", index=False
    )
    project.set_params(retention={"column": "taken", "days": 30})
    built = project.lmeraser("build")
    assert built.returncode == 0, built.stderr
    assert "1 people of the built model are not in the source any more" in built.stderr
    assert first not in built.stderr
    answer = project.json("upkeep")
    assert answer["by_cause"] == {"expired": 1}
    assert project.json("status")["proposed"] == 2
    answer = project.json("approve", "--proposed", "--by", "A. Officer")
    assert [request["state"] for request in answer["requests"]] == ["quarantined"] * 2
    finished = project.json("resume")["finished"]
    assert [(each["state"], each["records_removed"]) for each in finished] == [("certified", 0), ("certified", 1)]
    assert project.json("propose")["proposed"] == []
    proof = project.json("audit", "--rebuild", "--stores")
    assert (proof["equal"], proof["clean"]) == (True, True)
    assert project.json("verify", *(each["certificate"] for each in finished))["valid"]
