"""The model server: answers by protocol and by file, one plain line for whatever is wrong, nothing of a request elsewhere."""

import asyncio
import base64
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from builders import assert_clean, encoded, png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from served import ServedProject, photos
from starlette.types import ASGIApp

from flows.door.limits import Limits, Rate
from flows.door.pool import Pool
from flows.door.replies import RefusedError
from flows.door.running import application, begin, bind
from lmeraser.core.errors import BadInputError, NotReadyError, ProjectError
from lmeraser.serve.live import LiveModel
from lmeraser.serve.quarantine import lift

NAME = "digits"
LIMITS = Limits(body=50_000, images=8, rate=0)
INFER = f"/v2/models/{NAME}/infer"


class Client:
    """Of an application in this process."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, method: str, path: str, **given: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
                return await client.request(method, path, **given)

        return asyncio.run(ask())


@pytest.fixture(scope="module")
def model(served_template: ServedProject) -> Iterator[LiveModel]:
    with served_template.live() as opened:
        opened.current()
        yield opened


@pytest.fixture(scope="module")
def ask(model: LiveModel) -> Iterator[Client]:
    app, pool = application(model, NAME, LIMITS)
    yield Client(app)
    pool.close()


def tensor(**changes: Any) -> dict[str, Any]:
    images = photos(2)
    given = {"name": "images", "datatype": "UINT8", "shape": [2, 8, 8], "data": images.ravel().tolist()}
    return {"inputs": [given | changes]}


def line_of(response: httpx.Response) -> str:
    """The one line of a refusal."""
    assert 400 <= response.status_code < 600
    content = response.json()
    assert [*content] == ["error"]
    assert_clean(content["error"])
    assert "Traceback" not in content["error"]
    return str(content["error"])


# the protocol


def test_protocol_tells_what_is_served(ask: Client, model: LiveModel) -> None:
    version = model.current().version
    assert ask("GET", "/v2").json()["name"] == "lmeraser"
    assert ask("GET", "/v2/health/live").json() == {"live": True}
    assert ask("GET", "/v2/health/ready").json() == {"ready": True}
    for path in (f"/v2/models/{NAME}", f"/v2/models/{NAME}/versions/{version}"):
        told = ask("GET", path).json()
        assert (told["name"], told["versions"]) == (NAME, [version])
        assert ask("GET", f"{path}/ready").json()["ready"] is True


def test_inference_answers_with_version_and_what_is_left_out(ask: Client, model: LiveModel) -> None:
    outputs = ["label", "probabilities", "labels", "clusters", "global_head", "nearest"]
    expected = model.predict(photos(2))
    version = expected.parts.model_version
    asked = tensor() | {"id": "seven", "outputs": [{"name": name} for name in outputs]}
    for path in (INFER, f"/v2/models/{NAME}/versions/{version}/infer"):
        answer = ask("POST", path, json=asked).json()
        assert (answer["model_name"], answer["model_version"], answer["id"]) == (NAME, version, "seven")
        assert answer["parameters"] == {
            "left_out_clusters": "",
            "global_head": "answers",
            "left_out_by_one_pass": 0,
            "weight_of_clusters": 0.25,
        }
        made = {output["name"]: output for output in answer["outputs"]}
        assert [*made] == outputs
        assert made["label"]["data"] == expected.labels
        assert made["probabilities"]["data"] == expected.probabilities.ravel().tolist()
        assert made["probabilities"]["shape"] == [2, len(expected.parts.labels)]
        assert made["nearest"]["data"] == expected.parts.nearest


def test_nested_data_and_image_files_are_the_same_images(ask: Client) -> None:
    expected = ask("POST", INFER, json=tensor()).json()["outputs"]
    files = [base64.b64encode(encoded(Image.fromarray(image))).decode() for image in photos(2)]
    for same in (
        tensor(data=photos(2).tolist()),
        tensor(shape=[2, 8, 8, 1], data=photos(2)[..., None].tolist()),
        tensor(datatype="BYTES", shape=[2], data=files),
    ):
        assert ask("POST", INFER, json=same).json()["outputs"] == expected


BAD_TENSORS: dict[str, dict[str, Any]] = {
    "another name": {"name": "CANARY"},
    "another type": {"datatype": "FP32"},
    "no type": {"datatype": None},
    "a billion images": {"shape": [1_000_000_000, 8, 8]},
    "a billion pixels": {"shape": [1, 1_000_000_000, 1_000_000_000]},
    "no images": {"shape": [0, 8, 8], "data": []},
    "negative": {"shape": [-1, 8, 8]},
    "no shape": {"shape": []},
    "five dimensions": {"shape": [2, 8, 8, 1, 1]},
    "a shape of halves": {"shape": [2, 8, 8.0]},
    "a shape of truths": {"shape": [True, 8, 8]},
    "four channels": {"shape": [1, 8, 4, 4]},
    "too few": {"data": [1, 2, 3]},
    "too large": {"data": [256] * 128},
    "below zero": {"data": [-1] * 128},
    "halves": {"data": [0.5] * 128},
    "truths": {"data": [True] * 128},
    "texts": {"data": ["CANARY"] * 128},
    "ragged": {"data": [[[1] * 8] * 8, [[1] * 7] * 8]},
    "deep": {"data": [[[[1]]]] * 128},
    "no list": {"data": "CANARY"},
    "not base64": {"datatype": "BYTES", "shape": [1], "data": ["CANARY!"]},
    "no image": {"datatype": "BYTES", "shape": [1], "data": [base64.b64encode(b"CANARY").decode()]},
    "bytes of a shape": {"datatype": "BYTES", "shape": [1, 1], "data": ["aaaa"]},
    "more bytes than said": {"datatype": "BYTES", "shape": [1], "data": ["aaaa", "aaaa"]},
}


@pytest.mark.parametrize("changes", BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_tensor_that_is_no_batch_of_images_is_refused(ask: Client, changes: dict[str, Any]) -> None:
    response = ask("POST", INFER, json=tensor(**changes))
    assert response.status_code == 400
    line_of(response)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"CANARY",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"inputs": []}',
        b'{"inputs": [{}, {}]}',
        b'{"inputs": ["CANARY"]}',
        b'{"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 1, 1], "data": [NaN]}]}',
        b'{"inputs": [], "inputs": []}',
        b'{"id": 7, "inputs": [{}]}',
        b"[" * 20_000,
        b'{"a":' + b"9" * 10_000 + b"}",
        json.dumps(tensor() | {"outputs": [{"name": "CANARY"}]}).encode(),
        json.dumps(tensor() | {"outputs": "CANARY"}).encode(),
        json.dumps(tensor() | {"outputs": []}).encode(),
        json.dumps(tensor() | {"outputs": [{"name": ["CANARY"]}]}).encode(),
    ],
)
def test_body_that_is_no_inference_request_is_refused(ask: Client, body: bytes) -> None:
    response = ask("POST", INFER, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    line_of(response)


def test_another_content_type_name_version_or_route_is_refused(ask: Client, model: LiveModel) -> None:
    assert ask("POST", INFER, content=b"{}", headers={"content-type": "text/CANARY"}).status_code == 415
    present = model.current().version
    other = "0" * 64
    for method, path in (
        ("POST", f"/v2/models/{NAME}/versions/{other}/infer"),
        ("GET", f"/v2/models/{NAME}/versions/{other}"),
        ("GET", f"/v2/models/{NAME}/versions/CANARY/ready"),
    ):
        response = ask(method, path, **({"json": tensor()} if method == "POST" else {}))
        assert response.status_code == 404
        assert present in line_of(response)
    assert NAME in line_of(ask("GET", "/v2/models/CANARY"))
    assert NAME in line_of(ask("POST", "/v2/models/CANARY/infer", json=tensor()))
    assert ask("GET", "/CANARY").status_code == 404
    assert ask("DELETE", "/predict").status_code == 405
    line_of(ask("GET", "/CANARY"))
    line_of(ask("DELETE", "/predict"))


# image files


def test_files_are_answered_in_order_raw_or_as_a_form(ask: Client, model: LiveModel) -> None:
    first, second = (encoded(Image.fromarray(image)) for image in photos(2))
    expected = model.predict([first, second])
    form = ask("POST", "/predict", files=[("a", ("CANARY.png", first)), ("b", ("CANARY.png", second))]).json()
    assert form["model_version"] == expected.parts.model_version
    assert form["left_out"] == {"clusters": [], "global_head": "answers", "by_one_pass": 0}
    assert [answer["label"] for answer in form["predictions"]] == expected.labels
    assert form["predictions"][0]["clusters"]["weight"] + form["predictions"][0]["global_head"]["weight"] == 1
    for kind in ("image/png", "application/octet-stream", "image/whatever"):
        raw = ask("POST", "/predict", content=second, headers={"content-type": kind}).json()
        assert raw["predictions"] == form["predictions"][1:]
    assert "CANARY" not in json.dumps(form)


def test_what_is_no_image_file_or_no_form_is_refused(ask: Client) -> None:
    def refusal(**given: Any) -> tuple[int, str]:
        response = ask("POST", "/predict", **given)
        return response.status_code, line_of(response)

    assert refusal(content=b"CANARY", headers={"content-type": "image/png"})[0] == 400
    assert refusal(content=b"", headers={"content-type": "image/png"})[0] == 400
    assert "image 2 of 2" in refusal(files=[("a", png()), ("b", b"CANARY")])[1]
    assert refusal(data={"a": "CANARY"})[0] == 415
    assert refusal(content=png())[0] == 415
    assert refusal(files=[("a", png())], data={"b": "CANARY"})[0] == 400
    assert refusal(files=[("a", png())] * 9)[0] == 400
    assert refusal(content=b"CANARY", headers={"content-type": "multipart/form-data"})[0] == 400
    assert refusal(content=b"--x--\r\n", headers={"content-type": "multipart/form-data; boundary=x"})[0] == 400
    huge = encoded(Image.new("L", (2000, 2000)))
    assert "more than image.max_pixels" in refusal(content=huge, headers={"content-type": "image/png"})[1]


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
    st.lists(WORDS, max_size=6).map(lambda words: "/" + "/".join(words)),
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


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    assert logged[0]["where"].startswith("test_door.py:")
    assert "CANARY" not in str(logged)
    pool.close()


# the process


def test_port_in_use_and_unknown_address_are_told() -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(ProjectError, match="--port"):
            bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(BadInputError, match="--host"):
        bind("no.such.host.invalid", 0)


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
