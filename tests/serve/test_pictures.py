"""Pictures over HTTP: base64, data URIs, raw bodies and tensors of bytes are answered as a batch is; bad ones
are told.
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from penstock.core.events import Events
from penstock.recipe.schema import Serve
from penstock.serve.server import Serving
from tests.bundle import made
from tests.parts.pictures_made import album

torch.set_num_threads(1)
PHOTOS, LABELS = album(40)
JPEGS, _ = album(20, seed=9, format="JPEG")


def declared(stored: str) -> dict[str, Any]:
    return {
        "name": "shapes",
        "seed": 3,
        "source": {"type": "files", "path": "x"},
        "targets": {"shape": "category"},
        "inputs": {
            "photo": {"type": "image", "size": 16, "stored": stored, "augment": ["flip"]}
        },
        "model": {
            "encoders": {"photo": {"type": "cnn", "width": 8}},
            "combiner": {"type": "mlp", "width": 8, "depth": 1},
        },
    }


@pytest.fixture(scope="module", params=["pixels", "jpeg"])
def bundle(request: Any, tmp_path_factory: Any) -> Any:
    table = pa.table(
        {"photo": pa.array([*PHOTOS[:-1], None], pa.binary()), "shape": pa.array(LABELS)}
    )
    return made.make(
        tmp_path_factory.mktemp(request.param), declared(request.param), table
    )[0]


@pytest.fixture(scope="module")
def server(bundle: Any) -> Any:
    with Serving(bundle, Serve(port=0), Events()) as running:
        yield running


def post(url: str, body: bytes, **headers: str) -> tuple[int, Any]:
    request = urllib.request.Request(
        url,
        data=body,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_no_skew(bundle: Any, server: Any) -> None:
    """Every way to ask gives the batch's answers."""
    photos = [*PHOTOS, *JPEGS, None]
    expected = bundle.predict(
        pa.table({"photo": pa.array(photos, pa.binary())})
    ).to_pylist()
    assert len({json.dumps(row) for row in expected}) > 20, "pictures are told apart"
    assert (
        made.apart(bundle.predict([{"photo": photo} for photo in photos]), expected)
        <= 1e-5
    )
    for written in (text, lambda data: f"data:image/png;base64,{text(data)}"):
        records = [
            {"photo": None if photo is None else written(photo)} for photo in photos
        ]
        status, found = post(
            f"{server.url}/predict", json.dumps({"records": records}).encode()
        )
        assert status == 200 and made.apart(found["predictions"], expected) <= 1e-5
    for row in (0, 41):
        status, found = post(
            f"{server.url}/predict", photos[row] or b"", content_type="image/png"
        )
        assert (
            status == 200
            and made.apart(found["predictions"], expected[row : row + 1]) <= 1e-5
        )
        status, found = post(
            f"{server.url}/predict",
            json.dumps({"photo": text(photos[row] or b"")}).encode(),
        )
        assert (
            status == 200
            and made.apart(found["predictions"], expected[row : row + 1]) <= 1e-5
        )


@pytest.mark.parametrize("as_bytes", [True, False])
def test_tensors(bundle: Any, server: Any, as_bytes: bool) -> None:
    from tritonclient import http

    client = http.InferenceServerClient(server.url.removeprefix("http://"))
    metadata = client.get_model_metadata("shapes")
    assert metadata["inputs"] == [{"name": "photo", "datatype": "BYTES", "shape": [-1]}]
    asked = http.InferInput("photo", [3], "BYTES")
    asked.set_data_from_numpy(
        np.array(PHOTOS[:3] if as_bytes else [text(p) for p in PHOTOS[:3]], object),
        binary_data=as_bytes,
    )
    found = client.infer("shapes", [asked]).as_numpy("shape_probabilities")
    expected = bundle.predict([{"photo": photo} for photo in PHOTOS[:3]])
    assert (
        np.abs(
            found
            - [
                [row["shape_probabilities"][c] for c in sorted(set(LABELS))]
                for row in expected
            ]
        ).max()
        < 1e-5
    )


def test_what_cannot_be_answered_is_told(server: Any) -> None:
    status, found = post(
        f"{server.url}/predict",
        json.dumps(
            {
                "records": [
                    {"photo": text(PHOTOS[0])},
                    {"photo": text(PHOTOS[0][:90])},
                    {"photo": "/etc/hosts.png"},
                    {"photo": 5},
                ]
            }
        ).encode(),
    )
    assert (
        status == 422
        and [p["row"] for p in found["problems"]] == [1, 2, 3]
        and {p["field"] for p in found["problems"]} == {"photo"}
    )
    assert (
        "cannot be read" in found["problems"][0]["reason"]
        and "not a picture in base64" in found["problems"][1]["reason"]
        and "is not a picture" in found["problems"][2]["reason"]
    )
    status, found = post(f"{server.url}/predict", b"GIF89a", content_type="image/gif")
    assert status == 422 and found["problems"][0]["reason"].startswith("looks like GIF")


def test_the_page_tells_of_bytes(bundle: Any, server: Any) -> None:
    with urllib.request.urlopen(f"{server.url}/openapi.json", timeout=30) as response:
        page = json.load(response)
    photo = page["components"]["schemas"]["Record"]["properties"]["photo"]
    assert photo["type"] == ["string", "null"] and photo["contentEncoding"] == "base64"
    example = page["paths"]["/predict"]["post"]["requestBody"]["content"][
        "application/json"
    ]["example"]
    assert base64.b64decode(example["records"][0]["photo"]).startswith(b"\x89PNG")


def test_a_raw_body_is_one_column_of_bytes(tmp_path: Any) -> None:
    bundle, _ = made.shared(
        type("Factory", (), {"mktemp": lambda self, name: tmp_path})()
    )
    with Serving(bundle, Serve(port=0), Events()) as running:
        status, found = post(
            f"{running.url}/predict", PHOTOS[0], content_type="image/png"
        )
    assert (
        status == 400
        and "one column of bytes, but the model reads age (int64)" in found["error"]
    )


def test_golden_rows_stay_small(tmp_path: Any, monkeypatch: Any) -> None:
    from penstock.bundle import golden as golden_rows

    monkeypatch.setattr(golden_rows, "GOLDEN_BYTES", 20_000)
    table = pa.table({"photo": pa.array(PHOTOS, pa.binary()), "shape": pa.array(LABELS)})
    bundle, _, _ = made.make(tmp_path, declared("auto"), table)
    golden, _ = bundle.golden()
    assert 4 <= golden.num_rows <= 20 and golden.get_total_buffer_size() <= 24_000
