"""The server as its clients see it, over a real socket; Triton's own client among them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from penstock.core.errors import UserError
from penstock.core.events import Events
from penstock.recipe.schema import Serve
from penstock.serve.describe import openapi_of
from penstock.serve.server import Serving, _listen
from tests.bundle import made

ROOT = Path(__file__).resolve().parents[2]


def call(url: str, body=None, **headers):
    """(status, headers, body as JSON or text)."""
    data = (
        None
        if body is None
        else body
        if isinstance(body, bytes)
        else json.dumps(body).encode()
    )
    request = urllib.request.Request(
        url, data=data, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            found = response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as error:
        with error:
            found = error.code, dict(error.headers), error.read()
    return (
        *found[:2],
        json.loads(found[2])
        if "json" in found[1].get("content-type", "")
        else found[2].decode(),
    )


# -- plain JSON ----------------------------------------------------------------------------------------------


def test_predict(bundle, server):
    records = made.people(5, seed=3).to_pylist()
    status, headers, body = call(
        f"{server.url}/predict", {"records": records}, X_Request_Id="mine-1"
    )
    assert (
        status == 200
        and headers["x-request-id"] == body["request_id"] == "mine-1"
        and body["model"] == bundle.reference
    )
    assert made.apart(body["predictions"], bundle.predict(records)) <= 1e-5
    assert list(body["predictions"][0]) == [
        "id",
        "pay",
        "pay_probabilities",
        "kind",
        "kind_probabilities",
        "score",
    ]
    assert call(f"{server.url}/predict", records)[2]["predictions"] == body["predictions"]
    assert (
        made.apart(
            call(f"{server.url}/predict", records[0])[2]["predictions"],
            body["predictions"][:1],
        )
        <= 1e-5
    )
    assert call(f"{server.url}/predict", {"records": []})[2]["predictions"] == []


def test_unknown_fields_are_ignored_and_kept_ones_optional(server):
    record = made.people(1).to_pylist()[0]
    found = call(f"{server.url}/predict", {**record, "shoe": 44})[2]["predictions"][0]
    del record["id"]
    assert call(f"{server.url}/predict", record)[2]["predictions"][0] == {
        k: v for k, v in found.items() if k != "id"
    }


def test_a_bad_row_is_named_with_field_and_reason(server):
    records = made.people(3).to_pylist()
    records[0]["agee"] = records[0].pop("age")
    records[1]["income"] = "plenty"
    records[2]["city"] = {"name": "Oslo"}
    status, _, body = call(f"{server.url}/predict", {"records": records})
    assert status == 422 and body["request_id"]
    assert [(p["row"], p["field"]) for p in body["problems"]] == [
        (0, "age"),
        (1, "income"),
        (2, "city"),
    ]
    assert (
        "There is 'agee'" in body["problems"][0]["reason"]
        and "plenty" in body["problems"][1]["reason"]
    )


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b'{"records": [', 400, "not JSON"),
        (b"", 400, "not JSON"),
        (b"5", 400, "expected"),
        (b'{"records": 5}', 400, "expected"),
        (b"\xff\xfe", 400, "not JSON"),
        (b'{"records": [5]}', 422, "expected an object with the fields"),
        (b"{}", 422, "is required"),
    ],
)
def test_what_is_no_request(server, body, status, text):
    found, _, answer = call(f"{server.url}/predict", body)
    assert found == status and text in answer["error"]


def test_other_statuses(server):
    assert (
        call(f"{server.url}/nope")[0] == 404
        and "Not Found" in call(f"{server.url}/nope")[2]["error"]
    )
    assert call(f"{server.url}/predict")[0] == 405
    assert call(f"{server.url}/predict", b"x", Content_Encoding="gzip")[0] == 415
    forged = call(f"{server.url}/", X_Request_Id="a b<script>")[1]["x-request-id"]
    assert len(forged) == 32


def test_limits(bundle):
    record = made.people(1).to_pylist()[0]
    with Serving(
        bundle, Serve(port=0, max_rows=3, max_request_bytes=2_000), Events()
    ) as small:
        assert call(f"{small.url}/predict", [record] * 3)[0] == 200
        status, _, body = call(f"{small.url}/predict", [{}] * 4)
        assert status == 413 and "at most 3" in body["error"]
        status, _, body = call(f"{small.url}/predict", [{**record, "pad": "x" * 3_000}])
        assert status == 413 and "at most 2000" in body["error"]

        def chunks():
            yield b"[" + b" " * 1_500
            yield b" " * 1_500

        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(
                urllib.request.Request(
                    f"{small.url}/predict",
                    data=chunks(),
                    headers={"Transfer-Encoding": "chunked"},
                ),
                timeout=30,
            )
        with caught.value as error:
            assert error.code == 413


def test_too_slow_is_a_503(bundle, monkeypatch):
    predictor = bundle.predictor()
    true = predictor.admit
    monkeypatch.setattr(
        predictor, "admit", lambda intake: (time.sleep(0.4), true(intake))[1]
    )
    with Serving(bundle, Serve(port=0, timeout_seconds=0.1), Events()) as slow:
        status, _, body = call(f"{slow.url}/predict", made.people(1).to_pylist())
    assert status == 503 and "not answered in time" in body["error"]


def test_a_defect_is_a_500_without_a_traceback(bundle, monkeypatch):
    predictor = bundle.predictor()
    monkeypatch.setattr(predictor, "answer", lambda admitted: 1 // 0)
    heard = []
    with Serving(bundle, Serve(port=0), Events(heard.append)) as broken:
        status, headers, body = call(
            f"{broken.url}/predict", made.people(1).to_pylist(), X_Request_Id="r1"
        )
    assert (
        status == 500
        and body
        == {
            "error": "a defect of this server's (ZeroDivisionError); its log says more",
            "request_id": "r1",
        }
        and headers["x-request-id"] == "r1"
    )
    assert any(
        e.name == "warned"
        and "Traceback" in e.fields["text"]
        and e.fields["request_id"] == "r1"
        for e in heard
    )


def test_a_token_is_asked_for(bundle, monkeypatch):
    monkeypatch.delenv("PENSTOCK_TEST_TOKEN", raising=False)
    options = Serve(port=0, token_env="PENSTOCK_TEST_TOKEN")
    with pytest.raises(
        UserError,
        match="PENSTOCK_TEST_TOKEN, but that environment variable is unset or empty",
    ):
        Serving(bundle, options, Events())
    monkeypatch.setenv("PENSTOCK_TEST_TOKEN", "s3cret")
    with Serving(bundle, options, Events()) as guarded:
        assert (
            call(f"{guarded.url}/v2/health/live")[0]
            == call(f"{guarded.url}/v2/health/ready")[0]
            == 200
        )
        for path in ("/", "/predict", "/metrics", "/openapi.json", "/v2"):
            assert call(f"{guarded.url}{path}")[0] == 401, path
        assert call(f"{guarded.url}/", Authorization="Bearer wrong")[0] == 401
        status, headers, _ = call(f"{guarded.url}/", Authorization="Basic s3cret")
        assert status == 401 and headers["www-authenticate"] == "Bearer"
        assert (
            call(
                f"{guarded.url}/predict",
                made.people(1).to_pylist(),
                Authorization="Bearer s3cret",
            )[0]
            == 200
        )


def test_many_at_once_are_all_answered(bundle, server):
    records = made.people(120, seed=6).to_pylist()
    expected = bundle.predict(records)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(
                lambda r: call(f"{server.url}/predict", [r])[2]["predictions"][0], records
            )
        )
    assert made.apart(found, expected) <= 1e-5


def test_the_description_knows_what_kept_columns_are_called(bundle, monkeypatch):
    monkeypatch.setattr(type(bundle), "keep", ("name", "score"))
    described = openapi_of(bundle, Serve())["components"]["schemas"]
    assert {"name", "score"} <= described["Record"]["properties"].keys()
    answers = described["Prediction"]["properties"]
    assert "'score'" in answers["score_kept"]["description"] and answers["score"] == {
        "type": ["number", "null"]
    }
    assert "'name'" in answers["name"]["description"]


def test_pages(bundle, server):
    described = call(f"{server.url}/openapi.json")[2]
    record = described["components"]["schemas"]["Record"]
    assert record["required"] == list(bundle.columns)
    assert record["properties"]["age"]["type"] == ["integer", "null"] and record[
        "properties"
    ]["place"]["items"] == {"type": ["number", "null"]}
    assert described["components"]["schemas"]["Prediction"]["properties"]["score"] == {
        "type": ["number", "null"]
    }
    example = described["paths"]["/predict"]["post"]["requestBody"]["content"][
        "application/json"
    ]["example"]
    assert call(f"{server.url}/predict", example)[0] == 200
    page = call(f"{server.url}/docs")[2]
    assert "openapi.json" in page and "//" not in page  # nothing is loaded from elsewhere
    assert call(server.url)[2]["bundle"] == bundle.reference


def test_meters(bundle):
    with Serving(bundle, Serve(port=0), Events()) as fresh:
        call(f"{fresh.url}/predict", made.people(3).to_pylist())
        call(f"{fresh.url}/predict", [{}])
        call(f"{fresh.url}/secret/scan")
        page = call(f"{fresh.url}/metrics")[2]
    for line in (
        'penstock_requests_total{route="/predict",status="200"} 1.0',
        'penstock_requests_total{route="/predict",status="422"} 1.0',
        'penstock_requests_total{route="other",status="404"} 1.0',
        "penstock_rows_total 3.0",
        'penstock_errors_total{reason="refused"} 1.0',
        "penstock_batch_rows_sum 3.0",
        'penstock_request_seconds_count{route="/predict"} 2.0',
    ):
        assert line in page, line


# -- the Open Inference Protocol, by Triton's client ---------------------------------------------------------


@pytest.fixture(scope="module")
def triton(server):
    http = pytest.importorskip("tritonclient.http")
    client = http.InferenceServerClient(server.url.removeprefix("http://"))
    yield client
    client.close()


def test_triton_metadata(bundle, triton):
    assert (
        triton.is_server_live()
        and triton.is_server_ready()
        and triton.is_model_ready("people")
        and triton.is_model_ready("people", bundle.id)
    )
    assert triton.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    described = triton.get_model_metadata("people")
    assert [i["name"] for i in described["inputs"]] == list(bundle.columns) and described[
        "versions"
    ] == [bundle.id]


def tensors(table, *, binary: bool) -> list:
    http = pytest.importorskip("tritonclient.http")
    numpy = {
        "age": (
            np.array(
                [np.nan if v is None else v for v in table["age"].to_pylist()], np.float64
            ),
            "FP64",
        ),
        "income": (
            np.array(
                [np.nan if v is None else v for v in table["income"].to_pylist()],
                np.float64,
            ),
            "FP64",
        ),
        "city": (
            np.array([(v or "").encode() for v in table["city"].to_pylist()], np.object_),
            "BYTES",
        ),
        "code": (
            np.array([v or 0 for v in table["code"].to_pylist()], np.int64),
            "INT64",
        ),
        "member": (np.array([bool(v) for v in table["member"].to_pylist()]), "BOOL"),
        "joined": (
            np.array(
                [(v or "").encode() for v in table["joined"].to_pylist()], np.object_
            ),
            "BYTES",
        ),
        "place": (
            np.array([v or [0.0, 0.0] for v in table["place"].to_pylist()], np.float32),
            "FP32",
        ),
    }
    inputs = []
    for name, (values, datatype) in numpy.items():
        tensor = http.InferInput(name, list(values.shape), datatype)
        # its client refuses NaN as JSON
        tensor.set_data_from_numpy(values, binary_data=binary or datatype == "FP64")
        inputs.append(tensor)
    return inputs


@pytest.mark.parametrize("binary", [True, False])
def test_triton_infers(bundle, triton, binary):
    http = pytest.importorskip("tritonclient.http")
    table = made.people(50, seed=8)
    records = [
        {
            **r,
            "code": r["code"] or 0,
            "member": bool(r["member"]),
            "place": [float(np.float32(v)) for v in r["place"] or [0, 0]],
        }
        for r in table.to_pylist()
    ]
    expected = bundle.predict(records)
    outputs = [
        http.InferRequestedOutput(name, binary_data=binary)
        for name in ("pay", "pay_probabilities", "kind", "score")
    ]
    found = triton.infer(
        "people", tensors(table, binary=binary), outputs=outputs, request_id="q7"
    )
    assert (
        found.get_response()["id"] == "q7"
        and found.get_response()["model_version"] == bundle.id
    )
    words = [
        v.decode() if isinstance(v, bytes) else v for v in found.as_numpy("pay").tolist()
    ]
    assert words == [p["pay"] for p in expected]
    assert np.allclose(
        found.as_numpy("pay_probabilities")[:, 1],
        [p["pay_probabilities"]["high"] for p in expected],
        atol=1e-5,
    )
    assert np.allclose(found.as_numpy("score"), [p["score"] for p in expected], rtol=1e-5)
    assert (
        found.as_numpy("pay_probabilities").dtype == np.float32
        and found.as_numpy("kind_probabilities") is None
    )


def test_triton_asks_for_everything_by_default(bundle, triton):
    found = triton.infer("people", tensors(made.people(3), binary=True))
    assert {o["name"] for o in found.get_response()["outputs"]} == {
        "pay",
        "pay_probabilities",
        "kind",
        "kind_probabilities",
        "score",
    }
    assert found.as_numpy("kind_probabilities").shape == (3, 3)


def test_triton_is_told_what_is_wrong(triton):
    utils = pytest.importorskip("tritonclient.utils")
    with pytest.raises(
        utils.InferenceServerException, match="there is no model 'nobody'"
    ):
        triton.infer("nobody", tensors(made.people(1), binary=True))
    with pytest.raises(utils.InferenceServerException, match="age: is a required input"):
        triton.infer("people", tensors(made.people(1), binary=True)[1:])


def test_an_answer_is_not_held_back():
    """Nagle's algorithm would hold each back by 40 ms; asyncio turns it off for sockets that say that they
    are TCP.
    """
    with contextlib.closing(_listen(Serve(port=0))) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_the_room_says_what_it_lacks():
    code = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "fastapi":
            raise ModuleNotFoundError("blocked", name=name)
sys.meta_path.insert(0, Block())
from penstock.core.errors import MissingPackage
try:
    import penstock.serve.server
except MissingPackage as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert (
        "answering over HTTP needs the package 'fastapi'" in done.stdout
        and "penstock[serve]" in done.stdout
    ), done.stderr


# -- starting and stopping -----------------------------------------------------------------------------------


def test_a_port_in_use_is_a_sentence(bundle):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UserError, match=f"127.0.0.1:{port} is in use by another program"
        ):
            Serving(bundle, Serve(port=port), Events())
    with pytest.raises(UserError, match="cannot listen at"):
        Serving(bundle, Serve(port=0, host="203.0.113.7"), Events())


def test_sigterm_finishes_what_is_in_flight_and_succeeds(bundle, tmp_path):
    code = """
import sys, time
from penstock.bundle.bundle import Bundle
from penstock.core.events import Events
from penstock.recipe.schema import Serve
from penstock.serve.server import serve
bundle = Bundle.open(sys.argv[1])
predictor = bundle.predictor()
true = predictor.admit
def slowly(intake):
    print("working", flush=True)
    time.sleep(1.0)
    return true(intake)
predictor.admit = slowly
serve(bundle, Serve(port=0), Events(lambda e: print(e.line(), flush=True)))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(bundle.path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(call, f"{url}/predict", made.people(1).to_pylist())
            assert process.stdout.readline() == "working\n"
            process.send_signal(signal.SIGTERM)
            assert answer.result(20)[0] == 200
        assert "Stopped" in process.stdout.read()
        assert process.wait(20) == 0
