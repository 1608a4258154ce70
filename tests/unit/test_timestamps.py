"""Timestamps of certificates: a real authority (OpenSSL) dates them, nothing else leaves, no erasure waits, and what is not of
the certificate, of the authority or of its time is refused."""

import asyncio
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import yaml
from authority import HAS_OPENSSL, REASON, Answer, Authority, Desk, open_desk, openssl
from builders import ROOT, make_params, refused
from fake_pipeline import CANARY, FakePipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.cli.command_line import make_parser
from flows.door import callbacks, timestamps
from flows.door.courier import Courier
from flows.door.timestamps import TIMESTAMPED, Stamping, Standing, outlook
from flows.project import locked_if_free
from lmeraser.core.errors import BadInputError, ParamsError
from lmeraser.core.params import load_params
from lmeraser.erase.ledger import Ledger
from lmeraser.prove.timestamp import (
    MAX_BYTES,
    Timestamp,
    check_answer,
    load_roots,
    make_request,
    read_timestamp,
    timestamp_path,
    verify_timestamp,
)
from lmeraser.prove.verify import CertificateError

pytestmark = pytest.mark.skipif(not HAS_OPENSSL, reason=REASON)

VECTORS = ROOT / "tests" / "vectors"
GOOD = sorted((VECTORS / "good").glob("*.json"))
PERSON, OTHER = f"{CANARY}-2", f"{CANARY}-3"
DATA = GOOD[0].read_bytes()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority") / "here")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another authority, whom nobody trusts."""
    return Authority.make(tmp_path_factory.mktemp("authority") / "there", "Stranger")


@pytest.fixture
def desk(authority: Authority) -> Iterator[Desk]:
    with open_desk(authority) as made:
        yield made


def ask_at(pipeline: FakePipeline, desk: Desk, roots: Path | None = None) -> None:
    """Let the project have its certificates dated."""
    raw = yaml.safe_load(pipeline.layout.params.read_text())
    raw["service"] |= {"timestamp_url": desk.url, "timestamp_roots": str(roots) if roots else None}
    pipeline.layout.params.write_text(yaml.safe_dump(raw))


def round_of(pipeline: FakePipeline, at_once: bool = False, now: float | None = None) -> int:
    """A round of a new process. Args: now: what its clock says."""
    with pipeline.process() as project:
        return asyncio.run(Stamping(project, time.time if now is None else lambda: now).round(at_once))


def unless_refused(act: Callable[[], Timestamp]) -> Timestamp | None:
    """What was said; None where it was refused, with one line."""
    try:
        return act()
    except CertificateError as error:
        line = str(error)
    assert "\n" not in line
    return None


def stamps(pipeline: FakePipeline) -> list[str]:
    return sorted(path.name for path in pipeline.layout.certificates.glob("*.tsr"))


def noted(pipeline: FakePipeline) -> list[dict[str, object]]:
    with pipeline.process() as project:
        assert project.ledger.verify_chain() > 0
        return [event.data for event in project.ledger.events(kinds=(TIMESTAMPED,))]


# a real authority


def test_a_certificate_is_dated_by_an_authority_and_openssl_agrees(pipeline: FakePipeline, desk: Desk) -> None:
    ask_at(pipeline, desk, desk.authority.roots)
    answer = pipeline.json("forget", "--subject", PERSON)
    certificate = pipeline.root / answer["certificate"]
    token = pipeline.root / answer["timestamp"]
    assert token == timestamp_path(certificate)
    assert stat.S_IMODE(token.stat().st_mode) == stat.S_IMODE(certificate.stat().st_mode)
    told = pipeline.json("verify", str(certificate), "--tsa-root", str(desk.authority.roots))["certificates"][0]["timestamp"]
    (event,) = noted(pipeline)
    assert told["authority"] == "CN=Clock"
    assert (event["sha256"], event["stamped_at"], event["sequence"]) == (told["digest"], told["at"], 1)
    status, said = openssl("ts", "-verify", "-data", str(certificate), "-in", str(token), "-CAfile", str(desk.authority.roots))
    assert (status, "Verification: OK" in said) == (0, True), said
    assert "timestamps" not in pipeline.json("status")
    assert pipeline.json("status", answer["request_id"])["timestamp"] == answer["timestamp"]
    assert "not checked" in pipeline.command("verify", str(certificate))[2] + pipeline.command("verify", str(certificate))[1]


def test_nothing_but_a_digest_leaves(pipeline: FakePipeline, desk: Desk) -> None:
    ask_at(pipeline, desk)
    certificate = pipeline.root / pipeline.json("forget", "--subject", PERSON)["certificate"]
    ((headers, query),) = desk.asked
    assert hashlib.sha256(certificate.read_bytes()).digest() in query
    assert len(query) < 80, "version, algorithm, digest, nonce, and that the certificate is wanted"
    assert headers.pop("Host").startswith("localhost:")
    assert headers == {
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "keep-alive",
        "Content-Length": str(len(query)),
        "Content-Type": "application/timestamp-query",
        "User-Agent": "lmeraser",
    }


def test_without_an_authority_nothing_is_asked_or_told(pipeline: FakePipeline, desk: Desk) -> None:
    answer = pipeline.json("forget", "--subject", PERSON)
    assert "timestamp" not in answer
    assert (round_of(pipeline), desk.asked, stamps(pipeline)) == (0, [], [])
    assert "timestamps" not in pipeline.json("status")
    assert not pipeline.layout.timestamps.exists()


# what goes wrong


def wrong_answers(desk: Desk, stranger: Authority, certificate: Path) -> dict[str, tuple[Answer, str]]:
    """By what is wrong: what is answered, and what is said of it."""
    mine = certificate.read_bytes()
    return {
        "nonce": (lambda _: desk.rightly(make_request(mine).as_bytes()), "another nonce"),
        "digest": (lambda _: desk.rightly(make_request(b"other bytes").as_bytes()), "about other bytes"),
        "not granted": (lambda query: desk.rightly(query[:-3]), "did not grant"),
        "foreign": (lambda query: (200, stranger.reply(query)), "not signed by an authority of these roots"),
        "garbage": (lambda _: (200, f"<html>{CANARY}</html>".encode()), "no RFC 3161 answer"),
        "nothing": (lambda _: (200, b""), "no RFC 3161 answer"),
        "half": (lambda query: (200, desk.authority.reply(query)[:-40]), "no RFC 3161 answer"),
        "huge": (lambda query: (200, desk.authority.reply(query) + b"\0" * 2**22), "more than 65,536 bytes"),
        "500": (lambda _: (500, CANARY.encode()), "status 500"),
        "redirect": (lambda _: (307, b""), "status 307"),
    }


def test_a_wrong_answer_is_not_kept_and_is_asked_for_again(pipeline: FakePipeline, desk: Desk, stranger: Authority) -> None:
    certificate = pipeline.root / str(pipeline.forget(PERSON).certificate)
    ask_at(pipeline, desk, desk.authority.roots)
    answers = wrong_answers(desk, stranger, certificate)
    for tries, (wrong, (desk.answer, said)) in enumerate(answers.items(), start=1):
        assert round_of(pipeline, at_once=True) == 0, wrong
        assert (stamps(pipeline), noted(pipeline)) == ([], []), wrong
        standing = Standing.read(pipeline.layout)
        assert (standing.tries, said in str(standing.problem)) == (tries, True), standing
        assert CANARY not in pipeline.layout.timestamps.read_text()
    assert stat.S_IMODE(pipeline.layout.timestamps.stat().st_mode) == 0o600
    status, output, complaint = pipeline.command("resume", "--json")
    assert (status, CANARY in output + complaint) == (0, False), "the erasure is done, whatever an authority says"
    told = pipeline.json("status")["timestamps"]
    assert (told["missing"], told["tries"], told["foreign"]) == (1, len(answers) + 1, 0)
    desk.answer = desk.rightly
    pipeline.json("resume")
    assert (len(stamps(pipeline)), len(noted(pipeline))) == (1, 1)
    assert "timestamps" not in pipeline.json("status")


def test_an_authority_that_hangs_or_is_away_delays_no_erasure(
    pipeline: FakePipeline, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "WHOLE", 1.0)
    desk.delay = 10.0
    ask_at(pipeline, desk)
    request = pipeline.submit(PERSON)
    assert pipeline.sweep()[0].state == "certified"
    assert desk.asked == [], "no step asks"
    began = time.monotonic()
    assert round_of(pipeline, now=time.time() + 600) == 0  # so long a slow machine has for what comes until the next try
    assert time.monotonic() - began < 8
    assert "no answer within" in str(Standing.read(pipeline.layout).problem)
    assert pipeline.json("forget", "--subject", OTHER)["state"] == "certified", "too early to ask again"
    assert len(desk.asked) == 1
    desk.shutdown()
    desk.server_close()
    line = pipeline.command("resume")[2]
    assert "could not be reached" in line
    assert pipeline.json("status")["timestamps"]["missing"] == 2
    assert pipeline.request(request.request_id).state == "certified"


def test_what_fails_is_tried_again_later_and_later_for_ever_whatever_the_clock_does(pipeline: FakePipeline, desk: Desk) -> None:
    pipeline.forget(PERSON)
    ask_at(pipeline, desk)
    desk.answer = lambda _: (503, b"")
    now, waits = 1_800_000_000.0, []
    for tries in range(1, 16):
        round_of(pipeline, now=now)
        kept = Standing.read(pipeline.layout)
        assert kept.tries == tries == len(desk.asked)
        waits.append(kept.not_before - now)
        round_of(pipeline, now=now + waits[-1] - 0.1)
        assert len(desk.asked) == tries, "not before"
        now = kept.not_before
    assert waits[:5] == [2, 4, 8, 16, 32]
    assert waits[-1] == 3600
    round_of(pipeline, now=now - 1e6)
    assert len(desk.asked) == 16, "a clock that was moved back holds nobody up"
    pipeline.layout.timestamps.write_text("{")
    desk.answer = desk.rightly
    assert round_of(pipeline) == 1


def test_certificates_of_before_get_theirs_newest_first_and_one_that_cannot_be_read_keeps_no_other(
    pipeline: FakePipeline, desk: Desk
) -> None:
    first, second = (pipeline.forget(person).certificate for person in (PERSON, OTHER))
    ask_at(pipeline, desk)
    newest = pipeline.root / str(second)
    whole = newest.read_bytes()
    newest.unlink()
    newest.symlink_to("nowhere")
    assert round_of(pipeline) == 1
    assert stamps(pipeline) == [timestamp_path(pipeline.root / str(first)).name]
    told = pipeline.json("status")["timestamps"]
    assert (told["missing"], "no such file" in told["problem"]) == (1, True)
    newest.unlink()
    newest.write_bytes(whole)
    assert round_of(pipeline, at_once=True) == 1
    assert len(desk.asked) == 2


# kills


def test_killed_between_certificate_timestamp_and_ledger_each_is_there_once(
    pipeline: FakePipeline, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_at(pipeline, desk)
    pipeline.forget(PERSON)  # as after a kill before anybody asked

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timestamps, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            round_of(pipeline)
    assert (stamps(pipeline), noted(pipeline)) == ([], [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stamping, "_note", killed)
        with pytest.raises(KeyboardInterrupt):
            round_of(pipeline)
    assert (len(stamps(pipeline)), noted(pipeline)) == (1, [])
    asked = len(desk.asked)
    for _ in range(2):
        assert round_of(pipeline) == 0
    assert (len(noted(pipeline)), len(desk.asked)) == (1, asked)


def test_two_processes_ask_once(pipeline: FakePipeline, desk: Desk) -> None:
    pipeline.forget(PERSON)
    ask_at(pipeline, desk)
    with locked_if_free(pipeline.layout.timestamps_lock) as ours:
        assert ours
        assert round_of(pipeline) == 0
    assert desk.asked == []
    assert round_of(pipeline) == 1


def test_a_file_that_is_not_of_its_certificate_stays_and_is_told(pipeline: FakePipeline, desk: Desk) -> None:
    certificate = pipeline.root / str(pipeline.forget(PERSON).certificate)
    ask_at(pipeline, desk)
    odd = desk.authority.reply(make_request(b"other bytes").as_bytes())
    timestamp_path(certificate).write_bytes(odd)
    assert round_of(pipeline) == 0
    assert timestamp_path(certificate).read_bytes() == odd
    told = pipeline.json("status")["timestamps"]
    assert (told["missing"], told["foreign"], desk.asked, noted(pipeline)) == (0, 1, [], [])
    assert "find out why" in pipeline.command("status")[1] + pipeline.command("status")[2]
    timestamp_path(certificate).unlink()
    pipeline.json("resume")
    assert "timestamps" not in pipeline.json("status")


# the courier


def test_the_courier_asks_and_a_slow_authority_keeps_no_hook_waiting(
    pipeline: FakePipeline, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.door.courier.POLL", 0.01)
    pipeline.forget(PERSON)
    ask_at(pipeline, desk)
    desk.delay = 0.5
    rounds = []

    async def counted(_: Courier) -> int:
        rounds.append(time.monotonic())
        return 0

    monkeypatch.setattr(Courier, "round", counted)

    async def for_a_while(courier: Courier) -> None:
        running = asyncio.create_task(courier.run())
        until = time.monotonic() + 10
        while not stamps(pipeline) and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    with pipeline.process() as project:
        asyncio.run(for_a_while(Courier(project)))
    assert (len(stamps(pipeline)), len(desk.asked), len(noted(pipeline))) == (1, 1, 1)
    assert len(rounds) > 10


def test_where_nothing_is_missing_a_courier_reads_no_ledger(
    pipeline: FakePipeline, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_at(pipeline, desk)
    pipeline.json("forget", "--subject", PERSON)
    old = time.time() - 60
    os.utime(pipeline.layout.certificates, (old, old))
    with pipeline.process() as project:
        stamping = Stamping(project)
        assert asyncio.run(stamping.round()) == 0
        with monkeypatch.context() as patch:
            patch.delattr(Ledger, "events")  # whoever asks now fails
            assert asyncio.run(stamping.round()) == 0
    pipeline.forget(OTHER)
    assert len(stamps(pipeline)) == 1
    with pipeline.process() as project:
        stamping._project = project
        assert asyncio.run(stamping.round()) == 1, "a new certificate is seen"


# params, doctor


@pytest.mark.parametrize(
    "url",
    [
        "tsa.example.org",
        "ftp://tsa.example.org",
        f"https://{CANARY}:secret@tsa.example.org/",
        "https://tsa.example.org/#x",
        "https://tsa.example.org/a b",
        "https://",
        "",
    ],
)
def test_an_address_that_is_none_is_refused_without_being_shown(tmp_path: Path, url: str) -> None:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["service"]["timestamp_url"] = url
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    line = refused(ParamsError, lambda: load_params(tmp_path / "params.yaml"))
    assert "service.timestamp_url" in line
    assert "secret" not in line
    for good in ("http://tsa.example.org", "https://[::1]:8443/tsr?policy=1", "https://10.0.0.7:318/"):
        assert make_params({"service.timestamp_url": good}).service.timestamp_url == good


def test_roots_that_cannot_be_read_are_told_and_nothing_is_kept(pipeline: FakePipeline, desk: Desk) -> None:
    pipeline.forget(PERSON)
    ask_at(pipeline, desk, pipeline.root / CANARY)
    assert round_of(pipeline) == 0
    assert "service.timestamp_roots" in str(Standing.read(pipeline.layout).problem)
    assert (stamps(pipeline), CANARY in pipeline.layout.timestamps.read_text()) == ([], False)
    ask_at(pipeline, desk)
    with pipeline.process() as project:
        found = outlook(project)
        assert found is not None
        assert (found.missing, len(found.lines)) == (1, 1)


# verifying


@pytest.fixture
def dated(tmp_path: Path, authority: Authority) -> list[Path]:
    """The good chain with a timestamp beside each certificate."""
    for path in (*GOOD, VECTORS / "good" / "HEAD"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    files = [tmp_path / path.name for path in GOOD]
    for path in files:
        timestamp_path(path).write_bytes(authority.reply(make_request(path.read_bytes()).as_bytes()))
    return files


def verify(files: list[Path], roots: Path) -> dict[str, object]:
    words = ["verify", *map(str, files), "--key", str(VECTORS / "keys.pem"), "--tsa-root", str(roots)]
    options = make_parser().parse_args(words)
    answer: dict[str, object] = options.act(options)[0]
    return answer


def test_verify_checks_the_timestamp_of_every_certificate(dated: list[Path], authority: Authority, stranger: Authority) -> None:
    told = verify(dated, authority.roots)["certificates"]
    assert isinstance(told, list)
    assert {each["timestamp"]["authority"] for each in told} == {"CN=Clock"}
    assert "of these roots" in refused(CertificateError, lambda: verify(dated, stranger.roots))
    first, second = map(timestamp_path, dated[:2])
    kept = second.read_bytes()
    second.write_bytes(first.read_bytes())
    assert f"{dated[1].name}: its timestamp is about other bytes" in refused(
        CertificateError, lambda: verify(dated, authority.roots)
    )
    second.unlink()
    assert f"{dated[1].name}: no timestamp lies beside it" in refused(CertificateError, lambda: verify(dated, authority.roots))
    second.write_bytes(kept + b"\0" * MAX_BYTES)
    assert "more than 65,536 bytes" in refused(CertificateError, lambda: verify(dated, authority.roots))
    second.unlink()
    second.mkdir()
    refused(BadInputError, lambda: verify(dated, authority.roots))


def test_roots_that_are_none_are_bad_input(dated: list[Path], tmp_path: Path) -> None:
    for odd in (tmp_path / "CANARY", tmp_path, GOOD[0]):
        assert "--tsa-root" in refused(BadInputError, lambda odd=odd: verify(dated, odd))  # type: ignore[misc]


def test_a_signer_whose_time_was_over_when_it_signed_is_refused(tmp_path: Path) -> None:
    made = Authority.make(tmp_path / "old", "Old", ends=-1)
    answer = made.reply(make_request(DATA).as_bytes())
    check_answer(answer, DATA, None, "x")
    line = refused(CertificateError, lambda: verify_timestamp(answer, DATA, load_roots(made.roots, "x"), "x"))
    assert "expired" in line


def test_every_byte_of_a_timestamp_counts(authority: Authority) -> None:
    request = make_request(DATA)
    whole, roots = authority.reply(request.as_bytes()), load_roots(authority.roots, "x")
    sound = verify_timestamp(whole, DATA, roots, "x", request.nonce)
    unnoticed = set()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << (place % 8)
        told = unless_refused(partial(verify_timestamp, bytes(flipped), DATA, roots, "x", request.nonce))
        if told:
            assert (told.at, told.authority) == (sound.at, sound.authority)
            unnoticed.add(place)
    assert len(unnoticed) < len(whole) / 20, "what a verifier may overlook: encodings beside the signed content"


@settings(max_examples=200)
@given(st.data())
def test_whatever_is_answered_is_refused_with_one_line_or_says_the_same(authority: Authority, data: st.DataObject) -> None:
    whole, roots = _reply(authority), load_roots(authority.roots, "x")
    kind = data.draw(st.sampled_from(("any", "cut", "put in", "several")))
    answer = bytearray(whole)
    if kind == "any":
        answer = bytearray(data.draw(st.binary(max_size=300)))
    elif kind == "cut":
        start = data.draw(st.integers(0, len(whole) - 1))
        del answer[start : start + data.draw(st.integers(1, 40))]
    elif kind == "put in":
        start = data.draw(st.integers(0, len(whole)))
        answer[start:start] = data.draw(st.binary(min_size=1, max_size=20))
    else:
        for _ in range(data.draw(st.integers(1, 5))):
            answer[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    sound = verify_timestamp(whole, DATA, roots, "x")
    unless_refused(partial(check_answer, bytes(answer), DATA, None, "x"))
    told = unless_refused(partial(verify_timestamp, bytes(answer), DATA, roots, "x"))
    assert told is None or (told.at, told.authority) == (sound.at, sound.authority)


_REPLIES: dict[Path, bytes] = {}


def _reply(authority: Authority) -> bytes:
    if authority.folder not in _REPLIES:
        _REPLIES[authority.folder] = authority.reply(make_request(DATA).as_bytes())
    return _REPLIES[authority.folder]


def test_a_panic_of_the_parser_is_a_refusal(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):  # as pyo3 names it
        pass

    def panics(_: bytes) -> None:
        raise PanicException

    monkeypatch.setattr("rfc3161_client.decode_timestamp_response", panics)
    assert "no RFC 3161 answer" in refused(CertificateError, lambda: check_answer(b"x", DATA, None, "x"))

    def interrupted(_: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rfc3161_client.decode_timestamp_response", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check_answer(b"x", DATA, None, "x")


def test_the_timestamp_says_the_time_in_utc_and_never_more_than_it_was_asked(authority: Authority) -> None:
    before = time.time() - 1
    stamp = check_answer(_reply(authority), DATA, None, "x")
    at = datetime.fromisoformat(stamp.at)
    assert at.tzinfo == UTC
    assert before - 600 < at.timestamp() < time.time() + 1
    assert stamp.authority is None, "nobody looked who signed"


def test_a_request_of_ours_is_answered_by_another_hash_too(authority: Authority, tmp_path: Path) -> None:
    """An issuer may have had a certificate dated by other tools."""
    for name in ("sha384", "sha512"):
        query = tmp_path / f"{name}.tsq"
        openssl("ts", "-query", "-data", str(GOOD[0]), f"-{name}", "-cert", "-out", str(query))
        verify_timestamp(authority.reply(query.read_bytes()), DATA, load_roots(authority.roots, "x"), "x")


def test_what_lies_beside_a_certificate_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    assert "no timestamp" in refused(CertificateError, lambda: read_timestamp(tmp_path / "CANARY.tsr", "00001"))
    (tmp_path / "large.tsr").write_bytes(b"\0" * (MAX_BYTES + 5))
    assert len(read_timestamp(tmp_path / "large.tsr", "00001")) == MAX_BYTES + 1
