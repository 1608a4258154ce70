"""The door as people run it: a real project, a real process, a real erasure."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import preloading
import pytest
from doorway import FIRST, SECOND, a_request
from receiver import Receiver, listening
from sandbox import CANARY, Sandbox

from lmeraser.data.records import read_records

pytestmark = pytest.mark.slow


def opened(project: Sandbox, log: Path) -> tuple["subprocess.Popen[bytes]", str]:
    """A door and its address. It is no preloaded process (-E), because it gets a signal itself; what it starts is."""
    command = [sys.executable, "-E", "-m", "flows.cli", "door", "--port", "0", "--allow-http-callbacks"]
    variables = preloading.variables(os.environ | {"DVC_NO_ANALYTICS": "1"})
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=project.root, env=variables, stdout=output, stderr=output)
    for _ in range(600):
        lines = [line.split() for line in log.read_text().splitlines()]
        address = next((words[1] for words in lines if words[:1] == ["open"]), None)
        if address:
            return process, address
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def image_of(project: Sandbox, person: str) -> str:
    """The digest of one of a person's images."""
    parts = (project.root / "artifacts" / "split" / "private").glob("*.parquet")
    return next(record.sha256 for part in parts for record in read_records(part) if record.subject == person)


def until_told(receiver: Receiver, count: int) -> list[dict[str, Any]]:
    for _ in range(600):
        if len(receiver.got) >= count:
            break
        time.sleep(0.05)
    return [json.loads(body) for _, _, body in receiver.got]


def test_request_by_http_ends_certified_and_its_client_is_told(project: Sandbox, tmp_path: Path) -> None:
    token = project.json("token", "create", "--name", "acme", "--scope", "submit", "read")["token"]
    project.json("hook", "add", "--command", f"tee -a {tmp_path}/hook", "--on", "received,in_effect,certified,failed")
    person = project.people()[0]
    log = tmp_path / "door.log"
    process, address = opened(project, log)
    with listening() as receiver, httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}"}, timeout=60) as web:
        try:
            sent = web.post("/v2/requests", json=a_request(person, status_callback_urls=[receiver.url]))
            assert sent.status_code == 201, sent.text
            sent = web.post("/v2/images", json={"subject_request_id": SECOND, "sha256": [image_of(project, project.people()[1])]})
            assert sent.status_code == 201, sent.text
            finished = {request["request_id"]: request["state"] for request in project.json("resume")["finished"]}
            assert finished == dict.fromkeys((FIRST, SECOND), "certified"), "the scan found nothing of person and image"
            told = until_told(receiver, 2)
            status = web.get(f"/v2/requests/{FIRST}").json()
            certificate = web.get(f"/v2/requests/{FIRST}/certificate")
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
    assert [body["request_status"] for body in told] == ["in_progress", "completed"]
    assert status["request_status"] == "completed"
    file = tmp_path / certificate.headers["Content-Disposition"].split('"')[1]
    file.write_bytes(certificate.content)
    project.json("verify", str(file), "--key", "data/certificate-keys.pem")
    heard = [json.loads(line) for line in (tmp_path / "hook").read_text().splitlines()]
    for request_id in (FIRST, SECOND):
        theirs = [event["event"] for event in heard if event["request_id"] == request_id]
        assert theirs == ["received", "in_effect", "certified"]
    for text in (log.read_text(), (tmp_path / "hook").read_text(), json.dumps(told), json.dumps(status), certificate.text):
        assert CANARY not in text
    assert CANARY.encode() not in (project.root / ".lmeraser" / "door.db").read_bytes()
