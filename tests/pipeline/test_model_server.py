"""The real model server under load while somebody is forgotten: no answer from before, no gap, nothing of anybody in its log."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from sandbox import CANARY, Sandbox
from servers import running

from lmeraser.core.layout import Layout

pytestmark = pytest.mark.slow

CLIENTS = 8
PAUSE_S = 0.05  # between an answer and the next question: what is measured without it is bench.serving's


@dataclass
class Crowd:
    """Clients that ask again and again. Attributes: answers: begun, ended, status, version of each."""

    url: str
    image: bytes
    answers: list[tuple[float, float, int, str]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=30) as client:
            while not self._over.is_set():
                begun = time.monotonic()
                answer = client.post("/predict", content=self.image, headers={"content-type": "image/png"})
                version = str(answer.json().get("model_version"))
                self.answers.append((begun, time.monotonic(), answer.status_code, version))
                time.sleep(PAUSE_S)

    @contextmanager
    def asking(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()


def test_person_is_forgotten_under_eight_clients_and_no_answer_comes_from_before(project: Sandbox, tmp_path: Path) -> None:
    person, layout = project.people()[0], Layout(project.root)
    rows = project.manifest
    image = project.root / "people" / rows.loc[rows["subject"] == person, "path"].iloc[0]
    stood: list[float] = []

    def watch() -> None:
        while not layout.quarantine.exists():
            time.sleep(0.001)
        stood.append(time.monotonic())

    with running(project, tmp_path / "log", "serve", "--rate", "0") as url:
        crowd = Crowd(url, image.read_bytes())
        with crowd.asking():
            time.sleep(0.3)
            watcher = threading.Thread(target=watch)
            watcher.start()
            finished = project.json("forget", "--subject", person)
            watcher.join()
            time.sleep(0.5)
        ready = httpx.get(f"{url}/v2/health/ready").json()
        present = httpx.get(f"{url}/v2/models/lmeraser").json()
    assert finished["state"] == "certified"
    assert ready == {"ready": True}
    assert Counter(status for _, _, status, _ in crowd.answers).keys() == {200}, "no gap"
    before = {version for _, ended, _, version in crowd.answers if ended < stood[0]}
    assert len(before) == 1
    begun_after = [version for begun, _, _, version in crowd.answers if begun > stood[0]]
    assert len(begun_after) > 20
    assert before.isdisjoint(begun_after), "a version from before the erasure answered"
    last = max(ended for _, ended, _, version in crowd.answers if version in before)
    assert last - stood[0] < 1
    assert begun_after[-1] == present["versions"][0]
    assert present["left_out"] == {"clusters": [], "global_head": "answers", "by_one_pass": 0}
    log = (tmp_path / "log").read_text()
    assert CANARY not in log
    assert "Traceback" not in log
    assert log.count('"event":"request"') > len(begun_after)


@pytest.mark.parametrize("command", [["serve", "--port", "99999"], ["serve", "--name", CANARY + "/"], ["serve", "--rate", "-1"]])
def test_bad_option_of_the_server_is_one_line(project: Sandbox, command: list[str]) -> None:
    from sandbox import refused

    assert refused(project.lmeraser(*command), 2)
