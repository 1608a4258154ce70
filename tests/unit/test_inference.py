"""The model server: answers by protocol and by file, and one plain line for whatever is wrong."""

import base64
import json
from typing import Any

import pytest
from builders import encoded, png
from door_client import INFER, LIMITS, NAME, Client, line_of, tensor
from PIL import Image
from served import photos

from flows.serving.running import application
from lmeraser.serve.live import LiveModel

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


# the report page


def test_report_page_is_shown_where_it_is_asked_for_and_made_once_for_many(model: LiveModel) -> None:
    app, pool = application(model, NAME, LIMITS, report=True)
    ask = Client(app)
    pages = [ask("GET", "/") for _ in range(2)]
    pool.close()
    assert [page.status_code for page in pages] == [200, 200]
    assert pages[0].headers["cache-control"] == "no-store"
    assert "Erasure report" in pages[0].text
    assert pages[0].content == pages[1].content


def test_nobody_is_shown_the_report_page_unasked(ask: Client) -> None:
    assert ask("GET", "/").status_code == 404
