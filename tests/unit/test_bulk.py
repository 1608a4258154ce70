"""Many requests of one file: all rows or none, bad rows told by their lines alone, the same file twice has one effect."""

from pathlib import Path

import pytest
from builders import png
from fake_pipeline import CANARY, FakePipeline

from lmeraser.core.digest import sha256
from lmeraser.erase.states import CERTIFIED

IDS = [f"00000000-0000-4000-8000-{number:012}" for number in range(3)]


def written(folder: Path, *lines: str) -> str:
    (folder / "requests.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "requests.csv")


def test_each_row_is_a_request_and_the_same_file_twice_has_one_effect(pipeline: FakePipeline, tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "subject,sha256,request_id",
        f"{CANARY}-2,,{IDS[0]}",
        "",
        f",{sha256(png(30))},",
        f"{CANARY}-4,{sha256(png(50))},",
    )
    first = pipeline.json("submit", "--csv", file)["requests"]
    assert [request["state"] for request in first] == ["quarantined"] * 3
    assert first[0]["request_id"] == IDS[0]
    again = pipeline.json("submit", "--csv", file)["requests"]
    assert [request["request_id"] for request in again] == [request["request_id"] for request in first]
    assert [request.state for request in pipeline.resume()] == [CERTIFIED] * 3
    assert [request["state"] for request in pipeline.json("submit", "--csv", file)["requests"]] == [CERTIFIED] * 3
    assert len(pipeline.requests()) == 3


BAD = {
    "nobody": (f",,,{IDS[0]}", "line 3: it names nobody"),
    "unknown": (f"{CANARY}-x,,,", "line 3: it names somebody or an image that no record has"),
    "no digest": (f",{CANARY},,", "line 3: its sha256 is no SHA-256"),
    "no path": (f",,{CANARY}.png,", "line 3: its path is not in the source's table"),
}


@pytest.mark.parametrize(("row", "line"), BAD.values(), ids=list(BAD))
def test_bad_row_is_told_by_its_line_and_nothing_is_received(pipeline: FakePipeline, tmp_path: Path, row: str, line: str) -> None:
    refusal = pipeline.refused(2, "submit", "--csv", written(tmp_path, "subject,sha256,path,request_id", f"{CANARY}-2,,,", row))
    assert line in refusal
    assert pipeline.requests() == []


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        (("name", "x"), "the header has unknown"),
        (("request_id", IDS[0]), "the header has unknown"),
        (("subject,subject", "x,y"), "the header has unknown"),
        (("subject",), "no row"),
        (("subject,path", f"{CANARY}-2"), "line 2 has 1 cells"),
        (("subject", '"open'), "is no CSV"),
        (("subject,request_id", f"{CANARY}-2,{CANARY}"), "line 2: the request id is not a valid UUID"),
        (("subject,request_id", f"{CANARY}-2,{IDS[0]}", f"{CANARY}-3,{IDS[0]}"), "line 3: its request id is that of line 2"),
    ],
)
def test_file_that_is_no_such_table_is_refused_in_one_line(
    pipeline: FakePipeline, tmp_path: Path, lines: tuple[str, ...], part: str
) -> None:
    assert part in pipeline.refused(2, "submit", "--csv", written(tmp_path, *lines))
    assert pipeline.requests() == []


def test_who_has_public_records_is_blocked_and_the_others_are_accepted(pipeline: FakePipeline, tmp_path: Path) -> None:
    refusal = pipeline.refused(3, "submit", "--csv", written(tmp_path, "subject", "stock-0", f"{CANARY}-2"))
    assert "1 of 2 requests were refused (lines 2)" in refusal
    assert sorted(request.state for request in pipeline.requests()) == ["blocked", "quarantined"]


def test_erased_person_or_an_id_of_another_request_keeps_the_whole_file_out(pipeline: FakePipeline, tmp_path: Path) -> None:
    pipeline.json("forget", "--subject", f"{CANARY}-2", "--request-id", IDS[0])
    file = written(tmp_path, "subject,request_id", f"{CANARY}-3,", f"{CANARY}-2,", f"{CANARY}-4,{IDS[0]}")
    refusal = pipeline.refused(2, "submit", "--csv", file)
    assert "line 3: it names somebody or an image that is already erased" in refusal
    assert "line 4: its request id was already received for other subjects" in refusal
    assert len(pipeline.requests()) == 1


def test_several_requests_are_approved_at_once_and_an_unknown_id_approves_none(tmp_path: Path, pipeline: FakePipeline) -> None:
    params = pipeline.root / "params.yaml"
    params.write_text(params.read_text().replace("approval: false", "approval: true"))
    ids = [pipeline.json("submit", "--subject", f"{CANARY}-{number}")["request_id"] for number in (2, 3)]
    assert "unknown here" in pipeline.refused(2, "approve", *ids, IDS[2], "--by", "someone")
    assert [request.state for request in pipeline.requests()] == ["validated"] * 2
    answer = pipeline.json("approve", *ids, "--by", "someone")
    assert [request["state"] for request in answer["requests"]] == ["quarantined"] * 2


def test_failed_requests_are_tried_again_alone_where_they_are_named(pipeline: FakePipeline) -> None:
    first, second = (pipeline.submit(f"{CANARY}-{number}") for number in (2, 3))
    with pipeline.process() as project:
        for request in (first, second):
            project.ledger.fail([request.request_id], "no reason", 1, None, "StepFailedError")
    assert [request.state for request in pipeline.requests()] == ["failed"] * 2
    pipeline.json("resume", first.request_id)
    assert [request.state for request in pipeline.requests()] == [CERTIFIED, "failed"]
    assert "unknown here" in pipeline.refused(2, "resume", IDS[0])
