"""The service of a project with its real server and workers, and its API as a client sees it."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import preloading
from sandbox import Sandbox

# Under load Prefect's SQLite says now and then that it is locked (503), and has done nothing; its own client asks again, too.
BUSY_S = (0, 1, 2, 4, 8, 16)


class Service:
    """`make serve` in a project, and its API as a client sees it."""

    def __init__(self, project: Sandbox, process: "subprocess.Popen[str]") -> None:
        self.project, self.process = project, process
        server = json.loads((project.root / ".lmeraser" / "server.json").read_text())
        self.url, self.auth = str(server["url"]), str(server["auth"])

    def post(self, path: str, body: Any, auth: bool = True) -> tuple[int, Any]:
        return self.ask("POST", path, body, auth)

    def ask(self, method: str, path: str, body: Any, auth: bool = True) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json"}
        if auth:
            headers["Authorization"] = "Basic " + b64encode(self.auth.encode()).decode()
        for wait_s in BUSY_S:
            time.sleep(wait_s)
            try:
                asked = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers, method=method)
                with urllib.request.urlopen(asked, timeout=90) as answer:
                    return answer.status, json.loads(answer.read() or b"null")
            except urllib.error.HTTPError as error:
                code = error.code
            if code != 503:
                break
        return code, None

    def event(self, payload: dict[str, Any], resource: str, auth: bool = True) -> int:
        event = {
            "id": str(uuid.uuid4()),
            "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "event": "lmeraser.deletion.requested",
            "resource": {"prefect.resource.id": f"lmeraser.request.{resource}"},
            "payload": payload,
        }
        return self.post("/events", [event], auth)[0]

    def runs(self, flow: str = "forget") -> list[dict[str, Any]]:
        chosen = {"flows": {"name": {"any_": [flow]}}, "limit": 200}
        runs: list[dict[str, Any]] = self.post("/flow_runs/filter", chosen)[1]
        return runs

    def ways(self, flow: str) -> list[tuple[str, str, str]]:
        """When each run was to start, its state, and what the server says of it."""
        runs = self.runs(flow)
        return sorted((run["expected_start_time"], run["state_name"], str(run["state"]["message"])) for run in runs)

    def states(self) -> dict[str, str]:
        """State by request id, straight from the ledger's file: whoever waits asks every second, and a command takes one."""
        ledger = sqlite3.connect(f"file:{self.project.root}/.lmeraser/ledger.db?mode=ro", uri=True, timeout=30)
        try:
            return dict(ledger.execute("SELECT request_id, state FROM requests").fetchall())
        finally:
            ledger.close()


def wait(holds: Callable[[], bool], seconds: float, what: str, told: Callable[[], object] = str) -> None:
    """Until it holds. Args: told: what else a failure says."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds} s {told()}"
        time.sleep(1)


@contextmanager
def served(project: Sandbox, *options: str) -> Iterator[Service]:
    """The service, ended as Ctrl-C ends it."""
    log = (project.root.parent / "serve.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.service.supervisor", "--port", "0", *options],
        cwd=project.root,
        env=preloading.variables(os.environ | {"PYTHONPATH": str(project.root)}),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait(lambda: "end           Ctrl-C" in Path(log.name).read_text() or process.poll() is not None, 180, "the start")
        assert process.poll() is None, Path(log.name).read_text()
        yield Service(project, process)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        log.close()
