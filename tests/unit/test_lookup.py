"""Is somebody, or an image, in the model: yes, no, or erased when and by which request; of nobody else it tells anything."""

import json
from pathlib import Path

import pytest
from builders import png
from fake_pipeline import CANARY, FakePipeline, everybody

from lmeraser.core.digest import sha256

PERSON = f"{CANARY}-0"  # two training records and a test record


def test_lookup_tells_how_many_records_and_in_which_split(pipeline: FakePipeline, tmp_path: Path) -> None:
    person = pipeline.json("lookup", "--subject", f" {PERSON} ")
    assert (person["answer"], person["kind"]) == ("present", "subject")
    assert (person["records"], person["train"], person["test"], person["public"]) == (3, 2, 1, 0)
    (tmp_path / "picture.png").write_bytes(png(100))
    image = pipeline.json("lookup", "--image", str(tmp_path / "picture.png"))
    assert (image["answer"], image["kind"], image["public"]) == ("present", "image", 1)
    assert pipeline.json("lookup", "--sha256", "0" * 64)["answer"] == "absent"
    assert pipeline.json("lookup", "--subject", "nobody")["answer"] == "absent"
    assert pipeline.requests() == []


def test_lookup_of_who_was_erased_tells_when_and_by_which_request(pipeline: FakePipeline) -> None:
    done = pipeline.json("forget", "--subject", PERSON)
    open_request = pipeline.submit(images=[sha256(png(20))])
    person = pipeline.json("lookup", "--subject", PERSON)
    assert (person["answer"], person["request_id"], person["certificate"]) == ("erased", done["request_id"], done["certificate"])
    assert person["erased_at"] is not None
    image = pipeline.json("lookup", "--sha256", sha256(png(20)))
    assert (image["answer"], image["open_request"]) == ("present", open_request.request_id)


def test_answer_tells_nothing_of_anybody_else(pipeline: FakePipeline, tmp_path: Path) -> None:
    file = tmp_path / "answer.json"
    answers = [pipeline.command("lookup", "--subject", PERSON, "--json", "--signed", str(file))]
    answers += [pipeline.command("lookup", "--sha256", sha256(png(20)), "--json")]
    shown = "".join(output + complaint for _, output, complaint in answers) + file.read_text()
    for row in everybody():
        assert row.subject not in shown
        assert sha256(png(row.seed)) not in shown
    assert CANARY not in shown


def test_signed_answer_is_valid_and_one_that_was_changed_is_refused(pipeline: FakePipeline, tmp_path: Path) -> None:
    file = tmp_path / "answer.json"
    told = pipeline.json("lookup", "--subject", PERSON, "--signed", str(file))
    checked = pipeline.json("lookup", "--check", str(file))
    assert checked["valid"] is True
    assert {name: checked[name] for name in ("answer", "records", "kind")} == {
        name: told[name] for name in ("answer", "records", "kind")
    }
    assert pipeline.json("lookup", "--check", str(file), "--key", str(pipeline.layout.public_keys))["valid"] is True
    envelope = json.loads(file.read_bytes())
    payload = envelope["payload"]
    envelope["payload"] = payload[:200] + ("A" if payload[200] != "A" else "B") + payload[201:]
    (tmp_path / "changed.json").write_text(json.dumps(envelope))
    assert "the signed answer" in pipeline.refused(1, "lookup", "--check", str(tmp_path / "changed.json"))
    assert "the file exists" in pipeline.refused(2, "lookup", "--subject", PERSON, "--signed", str(file))


def test_signed_answer_is_no_certificate_and_a_certificate_is_no_answer(pipeline: FakePipeline, tmp_path: Path) -> None:
    file = tmp_path / "00001-00000000-0000-4000-8000-000000000001.json"
    certificate = pipeline.root / pipeline.json("forget", "--subject", PERSON)["certificate"]
    pipeline.json("lookup", "--subject", PERSON, "--signed", str(file))
    assert "statement about something else" in pipeline.refused(1, "verify", str(file), "--key", str(pipeline.layout.public_keys))
    assert "statement about something else" in pipeline.refused(1, "lookup", "--check", str(certificate))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--sha256", CANARY), "--sha256 is no SHA-256"),
        (("--image", CANARY), "--image cannot be read"),
        (("--subject", " "), "subject 1 of 1 is empty"),
        (("--subject", "x", "--key", CANARY), "--key is for --check"),
        (("--check", CANARY), "there is no such file"),
        ((), "0 questions were asked"),
        (("--subject", CANARY, "--sha256", "0" * 64), "2 questions were asked"),
    ],
)
def test_bad_question_is_refused_in_one_line(pipeline: FakePipeline, arguments: tuple[str, ...], line: str) -> None:
    assert line in pipeline.refused(2, "lookup", *arguments)
