"""The model server under whatever comes: too much, too often, nonsense, failures; and its beginning and end."""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator

import httpx
import pytest
from builders import png
from door_client import INFER, LIMITS, NAME, Client, line_of, tensor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import ServedProject

from flows.serving.limits import Limits, Rate
from flows.serving.pool import Pool
from flows.serving.replies import RefusedError
from flows.serving.running import application, begin
from lmeraser.core.errors import BadInputError, NotReadyError, ProjectError
from lmeraser.core.sockets import bound
from lmeraser.serve.live import LiveModel
from lmeraser.serve.quarantine import lift

# limits


def test_body_beyond_the_limit_is_refused_also_where_no_length_is_told(ask: Client) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(60):
            yield b"\0" * 1000

    for content in (b"\0" * 50_001, pieces()):
        response = ask("POST", "/predict", headers={"content-type": "image/png"}, content=content)
        assert response.status_code == 413
        assert "50000 bytes" in line_of(response)
    length = {"content-type": "image/png", "content-length": "CANARY"}
    assert ask("POST", "/predict", content=b"x", headers=length).status_code == 413


def test_client_that_asks_too_often_waits_and_others_do_not() -> None:
    now = [0.0]
    rate = Rate(10, clock=lambda: now[0])
    assert [rate.wait_s("a") for _ in range(20)] == [0.0] * 20
    assert rate.wait_s("a") == pytest.approx(0.1)
    assert rate.wait_s("b") == 0
    now[0] = 0.1
    assert rate.wait_s("a") == 0
    assert rate.wait_s("a") > 0
    for number in range(20_000):
        rate.wait_s(str(number))
    assert len(rate._buckets) <= 10_000
    assert all(Rate(0).wait_s("a") == 0 for _ in range(1000))


def test_rate_is_told_with_the_time_to_wait_and_health_has_none(model: LiveModel) -> None:
    app, pool = application(model, NAME, Limits(rate=1))
    client = Client(app)
    codes = [client("GET", "/v2").status_code for _ in range(4)]
    assert codes == [200, 200, 429, 429]
    assert int(client("GET", "/v2").headers["retry-after"]) >= 1
    assert all(client("GET", "/v2/health/ready").status_code == 200 for _ in range(9))
    pool.close()


def test_full_pool_refuses_and_takes_work_again_when_there_is_a_place() -> None:
    async def crowd() -> None:
        pool, gate = Pool(threads=1, waiting=1), threading.Event()
        waiting = [asyncio.ensure_future(pool.run(gate.wait)) for _ in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(RefusedError) as refused_now:
            await pool.run(gate.wait)
        assert refused_now.value.status == 503
        waiting[0].cancel()  # its client goes; its work does not
        await asyncio.sleep(0.01)
        with pytest.raises(RefusedError):
            await pool.run(gate.wait)
        gate.set()
        await waiting[1]
        assert await pool.run(lambda: 7) == 7
        pool.close()

    asyncio.run(crowd())


def test_health_is_answered_while_every_thread_computes(model: LiveModel, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(LiveModel, "predict", lambda *_: gate.wait())
    app, pool = application(model, NAME, LIMITS)

    async def crowd() -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
            busy = [asyncio.ensure_future(client.post(INFER, json=tensor())) for _ in range(30)]
            for path in ("/v2/health/live", "/v2/health/ready", f"/v2/models/{NAME}", "/metrics"):
                answer = await asyncio.wait_for(client.get(path), 5)
                assert answer.status_code == 200
            gate.set()
            await asyncio.gather(*busy)

    asyncio.run(crowd())
    pool.close()


# erasures


def test_answers_follow_a_request_and_say_so(served_project: ServedProject) -> None:
    with served_project.live() as model:
        app, pool = application(model, NAME, LIMITS)
        client = Client(app)
        before = client("POST", INFER, json=tensor()).json()["model_version"]
        slot = served_project.slots[0]
        served_project.quarantine([slot], "withheld")
        answer = client("POST", INFER, json=tensor()).json()
        assert answer["model_version"] != before
        assert answer["parameters"]["left_out_clusters"] == slot
        assert answer["parameters"]["global_head"] == "withheld"
        assert client("POST", f"/v2/models/{NAME}/versions/{before}/infer", json=tensor()).status_code == 404
        metrics = client("GET", "/metrics").text
        assert "lmeraser_left_out_clusters 1.0" in metrics
        assert f'lmeraser_model_info{{version="{answer["model_version"]}"}} 1.0' in metrics
        served_project.quarantine([], "withheld", withheld=True)
        for method, path in (("POST", INFER), ("GET", "/v2/health/ready"), ("GET", f"/v2/models/{NAME}/ready")):
            response = client(method, path, **({"json": tensor()} if method == "POST" else {}))
            assert response.status_code == 503
        assert "withheld" in line_of(client("POST", INFER, json=tensor()))
        assert "lmeraser_ready 0.0" in client("GET", "/metrics").text
        assert client("GET", "/v2/health/live").status_code == 200
        pool.close()


# whatever comes

METHODS = st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "TRACE"])
WORDS = st.sampled_from(
    ["CANARY", "..", "%00", "%2e%2e%2f", "v2", "models", NAME, "versions", "infer", "ready", "health", "", "ä"]
)
KINDS = st.sampled_from(["application/json", "image/png", "multipart/form-data; boundary=CANARY", "CANARY", "", "text/html"])
PATHS = st.one_of(
    st.sampled_from([INFER, "/predict", "/v2", "/metrics", "/openapi.json", "/v2/health/ready", f"/v2/models/{NAME}"]),
    st.lists(WORDS, max_size=6).map(lambda words: "/" + "/".join(words).lstrip("/")),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.sampled_from(["CANARY", "UINT8", "BYTES"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=8
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["images", "CANARY"]) | VALUES,
        "datatype": st.sampled_from(["UINT8", "BYTES", "FP32"]) | VALUES,
        "shape": st.lists(st.integers(-1, 9), max_size=5) | VALUES,
        "data": st.lists(st.integers(-1, 256), max_size=64) | VALUES,
    },
)
REQUESTS = st.fixed_dictionaries({"inputs": st.lists(TENSORS, max_size=2) | VALUES}, optional={"id": VALUES, "outputs": VALUES})
BODIES = st.one_of(
    st.binary(max_size=200),
    REQUESTS.map(lambda request: json.dumps(request).encode()),
    st.binary(max_size=60).map(
        lambda data: b'--CANARY\r\nContent-Disposition: form-data; name="CANARY"; filename="CANARY"\r\n\r\n' + data
    ),
    st.binary(max_size=60).map(lambda data: png()[:-20] + data),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=METHODS, path=PATHS, kind=KINDS, body=BODIES)
def test_whatever_comes_no_answer_is_a_failure_and_nothing_of_it_comes_back(
    ask: Client, capsys: pytest.CaptureFixture[str], method: str, path: str, kind: str, body: bytes
) -> None:
    response = ask(method, path, content=body, headers={"content-type": kind})
    assert response.status_code < 500
    assert "CANARY" not in response.text
    assert "CANARY" not in str(response.headers)
    if response.status_code >= 400 and method != "HEAD":
        line_of(response)
    printed = capsys.readouterr()
    assert "CANARY" not in printed.err + printed.out
    for line in printed.err.splitlines():
        assert {*json.loads(line)} <= {"time", "event", "route", "method", "status", "seconds"}


def test_requests_that_are_logged_and_counted_name_routes_as_they_are_declared(
    ask: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in ("/v2/models/CANARY", "/CANARY", f"/v2/models/{NAME}/versions/CANARY"):
        ask("GET", path)
    ask("POST", "/predict", files=[("CANARY", ("CANARY.png", png()))])
    ask("CANARY", "/v2")
    metrics = ask("GET", "/metrics").text
    assert "CANARY" not in metrics + capsys.readouterr().err
    assert re.search(r'lmeraser_requests_total\{route="/predict",status="200"\} \d', metrics)
    assert 'route="none"' in metrics
    assert re.search(r"lmeraser_images_total \d", metrics)
    assert re.search(r'lmeraser_request_seconds_bucket\{le="0.25",route="/v2"\}', metrics)


def test_failure_that_nobody_expected_is_one_line_and_its_log_says_where(
    model: LiveModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("CANARY")

    monkeypatch.setattr(LiveModel, "predict", fail)
    app, pool = application(model, NAME, LIMITS)
    response = Client(app)("POST", INFER, json=tensor())
    assert response.status_code == 500
    line_of(response)
    logged = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert logged[0]["kind"] == "KeyError"
    assert logged[0]["where"].startswith("test_door_limits.py:")
    assert "CANARY" not in str(logged)
    pool.close()


# the process


def test_port_in_use_and_unknown_address_are_told() -> None:
    with bound("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(ProjectError, match="--port"):
            bound("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(BadInputError, match="--host"):
        bound("no.such.host.invalid", 0)


def test_server_begins_unready_where_time_helps_and_refuses_where_it_does_not(
    served_project: ServedProject, capsys: pytest.CaptureFixture[str]
) -> None:
    served_project.quarantine([], "withheld", withheld=True)
    with served_project.live() as model:
        begin(model)
        assert "not ready: the model is withheld" in capsys.readouterr().err
        lift(served_project.layout)
        model._read()
        assert model.present()
    served_project.layout.head.unlink()
    with served_project.live() as model, pytest.raises(ProjectError) as refusal:
        begin(model)
    assert not isinstance(refusal.value, NotReadyError)
