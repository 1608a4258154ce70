"""The courier and what it tells: pinned, signed, bounded, and no name in it."""

import asyncio
import base64
import hmac
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doorway import FIRST, HOST, Doorway, a_request, doorway
from fake_pipeline import CANARY, FakePipeline
from receiver import Receiver, listening

from flows import processes
from flows.door import addresses, callbacks, hooks, outbox
from flows.door.addresses import Target
from flows.door.courier import Courier
from flows.door.outbox import WEBHOOK
from flows.project import locked
from lmeraser.core.errors import RequestError, StepFailedError


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as server:
        yield server


@pytest.fixture
def way(pipeline: FakePipeline) -> Iterator[Doorway]:
    async def here(host: str, _: int) -> list[str]:
        return ["127.0.0.1"]

    with pipeline.process() as project, doorway(project) as made:
        made.door.open_http, made.door.resolver = True, here
        yield made


def courier(way: Doorway) -> Courier:
    return Courier(way.door.home, way.door.signer, way.door.resolver, open_http=way.door.open_http)


def test_callback_is_told_each_status_signed_and_without_a_name(way: Doorway, pipeline: FakePipeline, receiver: Receiver) -> None:
    way.send(a_request(f"{CANARY}-1", status_callback_urls=[receiver.url]))
    pipeline.sweep()
    assert asyncio.run(courier(way).round()) == 2
    told = [json.loads(body) for _, _, body in receiver.got]
    assert [body["request_status"] for body in told] == ["in_progress", "completed"]
    for (path, headers, body), content in zip(receiver.got, told, strict=True):
        assert path == "/told"
        assert headers["Host"] == receiver.url.split("/")[2]
        assert headers["X-OpenDSR-Processor-Domain"] == "door.example"
        assert headers["X-OpenDSR-Signature"] == way.door.signer.headers(body)["X-OpenDSR-Signature"]
        assert (content["subject_request_id"], content["controller_id"]) == (FIRST, "acme")
        assert content["status_callback_url"] == receiver.url
        assert CANARY not in str(headers) + body.decode()
    assert told[1]["results_url"] == f"{HOST}/requests/{FIRST}/certificate"
    assert receiver.url.encode() not in way.door.store.path.read_bytes()


def test_callback_that_fails_is_told_again_and_never_blocks_the_erasure(
    way: Doorway, pipeline: FakePipeline, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.answers = [(500, {}, 0, 0.0)]
    way.send(a_request(f"{CANARY}-1", status_callback_urls=[receiver.url]))
    assert asyncio.run(courier(way).round()) == 0
    pipeline.sweep()
    assert way.states == {FIRST: "certified"}
    assert pipeline.json("status")["untold"] == {"waiting": 1, "given_up": 0}
    with way.door.store.transaction() as connection:
        connection.execute("UPDATE deliveries SET not_before = 0")
    assert asyncio.run(courier(way).round()) == 2
    assert [json.loads(body)["request_status"] for _, _, body in receiver.got] == ["in_progress"] * 2 + ["completed"]
    assert "untold" not in pipeline.json("status")
    output = capsys.readouterr().err
    assert "status 500" in output
    assert receiver.url not in output


def test_name_that_resolves_to_an_inner_address_later_is_not_connected_to(way: Doorway, receiver: Receiver) -> None:
    """DNS rebinding: public when it was checked, this machine when it is connected to."""
    answers = [["93.184.215.14"], ["127.0.0.1"]]

    async def turning(host: str, _: int) -> list[str]:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    way.door.open_http, way.door.resolver = False, turning
    url = receiver.url.replace("http://localhost", "https://turning.example")
    assert way.send(a_request(f"{CANARY}-1", status_callback_urls=[url])).status_code == 201
    assert asyncio.run(courier(way).round()) == 0
    assert receiver.got == []
    assert "public internet" in str(outbox.subscriptions(way.door.store)[0]["problem"])


def test_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    port = int(receiver.url.split(":")[2].split("/")[0])

    async def never(*_: Any) -> None:
        raise AssertionError("the name was resolved again")

    monkeypatch.setattr(addresses, "resolve", never)
    target = Target(f"http://name.that.is.nowhere.example:{port}/a?b=c", "name.that.is.nowhere.example", port, "127.0.0.1")
    asyncio.run(callbacks.post(target, b"{}", {}))
    path, headers, _ = receiver.got[0]
    assert (path, headers["Host"]) == ("/a?b=c", f"name.that.is.nowhere.example:{port}")


def test_tls_asks_for_the_hosts_certificate_though_it_connects_to_an_address() -> None:
    for address, shown in (("93.184.215.14", "93.184.215.14"), ("2606::1", "[2606::1]")):
        url, host, extensions = callbacks._pinned(Target("https://a.example/x", "a.example", 443, address))
        assert (url, host, extensions) == (f"https://{shown}:443/x", {"Host": "a.example"}, {"sni_hostname": "a.example"})


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ((301, {"Location": "http://127.0.0.1:1/"}, 0, 0.0), "status 301"),
        ((307, {"Location": "/again"}, 0, 0.0), "status 307"),
        ((404, {}, 0, 0.0), "status 404"),
        ((200, {}, 0, 2.0), "no answer"),
    ],
)
def test_answer_that_is_no_success_is_a_failure_and_no_redirect_is_followed(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, answer: Any, line: str
) -> None:
    monkeypatch.setattr(callbacks, "WHOLE", 1.0)  # less, and a busy machine has not made a client by then
    receiver.answers = [answer]
    with pytest.raises(StepFailedError, match=line) as failed:
        asyncio.run(callbacks.post_anywhere(receiver.url, b"{}", {}))
    assert "localhost" not in str(failed.value)
    assert len(receiver.got) == 1


def test_endless_answer_is_not_read(receiver: Receiver) -> None:
    receiver.answers = [(200, {}, 2**30, 0.0)]
    began = time.monotonic()
    asyncio.run(callbacks.post_anywhere(receiver.url, b"{}", {}))
    assert time.monotonic() - began < 5
    with pytest.raises(StepFailedError, match="could not be reached"):
        asyncio.run(callbacks.post_anywhere("http://127.0.0.1:9/", b"{}", {}))


# Hooks


def test_command_is_told_by_standard_input_alone(pipeline: FakePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMERASER_LEDGER_URL_PASSWORD", "secret")
    script = tmp_path / "told.sh"
    script.write_text(f'#!/bin/sh\ncat >> {tmp_path}/told\nenv > {tmp_path}/env\necho "$@" > {tmp_path}/words\n')
    script.chmod(0o755)
    hook = pipeline.json("hook", "add", "--command", f"{script} 'a b; $HOME'", "--on", "received,in_effect,certified")["id"]
    certificate = pipeline.forget(f"{CANARY}-1").certificate
    assert pipeline.json("hook", "send") == {"told": 3, "waiting": 0, "given_up": 0}
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert [event["event"] for event in told] == ["received", "in_effect", "certified"]
    assert told[2]["certificate"] == certificate
    assert len(told[2]["certificate_sha256"]) == 64
    assert len({event["delivery_id"] for event in told}) == 3
    assert CANARY not in (tmp_path / "told").read_text()
    assert "secret" not in (tmp_path / "env").read_text()
    assert (tmp_path / "words").read_text() == "a b; $HOME\n", "no shell had a look at it"
    assert [row["waiting"] for row in pipeline.json("hook", "list")["hooks"]] == [0]
    pipeline.json("hook", "test", hook)
    assert pipeline.json("hook", "remove", hook) == {"id": hook}
    pipeline.forget(f"{CANARY}-2")
    assert pipeline.json("hook", "send")["told"] == 0


def test_webhook_is_signed_as_the_specification_says(pipeline: FakePipeline, receiver: Receiver) -> None:
    made = pipeline.json("hook", "add", "--url", receiver.url, "--on", "received")
    pipeline.submit(f"{CANARY}-1")
    assert pipeline.json("hook", "send")["told"] == 1
    _, headers, body = receiver.got[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(made["secret"].removeprefix("whsec_"))
    assert headers["webhook-signature"] == "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    assert CANARY not in body.decode() + str(headers)
    assert made["secret"] not in str(pipeline.json("hook", "list"))


def test_hook_that_fails_is_told_in_status_and_tried_again(pipeline: FakePipeline) -> None:
    hook = pipeline.json("hook", "add", "--command", "false", "--on", "received")["id"]
    pipeline.submit(f"{CANARY}-1")
    assert pipeline.json("hook", "send")["waiting"] == 1
    assert pipeline.json("status")["untold"] == {"waiting": 1, "given_up": 0}
    assert "status 1" in pipeline.json("hook", "list")["hooks"][0]["problem"]
    assert "status 1" in pipeline.refused(1, "hook", "test", hook)


@pytest.mark.parametrize(
    "arguments",
    [
        ["add", "--on", "received"],
        ["add", "--command", "true", "--url", "https://a.example/", "--on", "received"],
        ["add", "--command", "true"],
        ["add", "--command", "true", "--on", "never"],
        ["add", "--command", "'", "--on", "received"],
        ["add", "--command", " ", "--on", "received"],
        ["add", "--url", "http://a.example/", "--on", "received"],
        ["add", "--url", "https://a:b@a.example/", "--on", "received"],
        ["add", "--command", "true", "--on", "late", "--days-before", "0"],
        ["remove"],
        ["remove", "nonesuch"],
        ["test", "nonesuch"],
    ],
)
def test_hook_that_makes_no_sense_is_refused(pipeline: FakePipeline, arguments: list[str]) -> None:
    pipeline.refused(2, "hook", *arguments)


def test_command_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    script = "import os,subprocess,sys,time\nsubprocess.Popen(['sleep','600'])\nopen('started','w').close()\ntime.sleep(600)"
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        processes.tell(["python", "-c", script], tmp_path, {"PATH": os.environ["PATH"]}, b"{}", 1.0)
    assert time.monotonic() - began < 10
    assert (tmp_path / "started").exists()


def test_command_inherits_no_lock(tmp_path: Path) -> None:
    with locked(tmp_path / "workspace.lock", "waiting"):
        script = "import os,sys\nsys.exit(len(os.listdir('/proc/self/fd')) - 4)"  # three, and the one that lists
        assert processes.tell(["python", "-c", script], tmp_path, {"PATH": os.environ["PATH"]}, b"", 30.0) == 0


def test_command_that_is_not_there_is_told_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(StepFailedError, match="could not be started") as failed:
        hooks.run([str(tmp_path / CANARY)], b"", tmp_path)
    assert CANARY not in str(failed.value)


def test_courier_goes_on_after_whatever_goes_wrong(
    way: Doorway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.door.courier.POLL", 0.0)
    problems: list[Exception] = [StepFailedError("the ledger was busy"), KeyError(CANARY), RequestError("x")]

    async def failing(_: Courier) -> int:
        if problems:
            raise problems.pop(0)
        raise asyncio.CancelledError

    monkeypatch.setattr(Courier, "round", failing)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(courier(way).run())
    output = capsys.readouterr().err
    assert "the ledger was busy" in output
    assert CANARY not in output


def test_hooks_alone_leave_callbacks_to_the_door(way: Doorway, receiver: Receiver) -> None:
    way.send(a_request(f"{CANARY}-1", status_callback_urls=[receiver.url]))
    outbox.add_hook(way.door.store, WEBHOOK, receiver.url, "whsec_" + base64.b64encode(b"k" * 32).decode(), ["received"], 7, 0)
    assert asyncio.run(Courier(way.door.home).round()) == 1
    assert [json.loads(body)["event"] for _, _, body in receiver.got] == ["received"]
