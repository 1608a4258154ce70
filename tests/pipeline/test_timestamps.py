"""Timestamps with the real pipeline: an authority that is away keeps no erasure, the courier's process has certificates dated
once it is back, and the scan of all stores, which reads the timestamps too, finds nobody in them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from authority import HAS_OPENSSL, REASON, Authority, open_desk
from sandbox import CANARY, Sandbox

from lmeraser.prove.timestamp import load_roots, timestamp_path, verify_timestamp

pytestmark = [
    pytest.mark.campaign(
        "a real erasure, a courier's process and a scan of all stores; test_timestamps.py of tests/unit is quick"
    ),
    pytest.mark.skipif(not HAS_OPENSSL, reason=REASON),
]


def test_a_certificate_is_dated_by_the_couriers_process_once_the_authority_is_back(project: Sandbox, tmp_path: Path) -> None:
    authority = Authority.make(tmp_path / "authority")
    with open_desk(authority) as desk:
        desk.answer = lambda _: (503, b"away")
        project.set_params(service={"timestamp_url": desk.url, "timestamp_roots": str(authority.roots)})
        done = project.lmeraser("forget", "--subject", project.people()[3])
        assert (done.returncode, "status 503" in done.stderr) == (0, True), done.stderr
        certificate = next((project.root / "certificates").glob("*.json"))
        desk.answer = desk.rightly
        env = os.environ | {"LMERASER_PROJECT": str(project.root), "PYTHONPATH": str(project.root)}
        command = [sys.executable, "-m", "flows.door.courier"]
        with subprocess.Popen(command, cwd=project.root, env=env, stderr=subprocess.PIPE, text=True) as courier:
            until = time.monotonic() + 120
            while not timestamp_path(certificate).exists() and courier.poll() is None and time.monotonic() < until:
                time.sleep(0.1)
            courier.terminate()
            said = courier.communicate(timeout=60)[1]
    assert timestamp_path(certificate).exists(), said
    answer, roots = timestamp_path(certificate).read_bytes(), load_roots(authority.roots, "roots")
    assert verify_timestamp(answer, certificate.read_bytes(), roots, certificate.name).authority == "CN=Clock"
    assert project.json("audit", "--stores")["clean"]
    assert CANARY not in done.stdout + done.stderr + said
    assert all(CANARY.encode() not in query for _, query in desk.asked)
