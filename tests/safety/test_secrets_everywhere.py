"""Ten secrets given in the ten ways there are, and a whole journey on a real bucket: none is seen in what it
leaves or says.

Commands run as users run them, in processes of their own, whose environment holds the secrets; the bucket is
a real S3 server. The model is the user's own, on two processes; it fails once, with every secret in its
error, in many spellings.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from penstock.bundle.bundle import Bundle
from penstock.core.events import Event, Events
from penstock.core.store import Store
from penstock.recipe.schema import Serve
from penstock.serve.server import Serving
from tests.faults import Line, faulty_s3
from tests.safety.test_secrets import ROWS, _Lake, lake  # noqa: F401 - a fixture

HANG_SECONDS = 280
LAKE_SECRET = "sésame-77x"
ACCESS, BUCKET_SECRET = "AKIDPLANTED2XY", "wJalr/planted+20x"
OPTION, SET_OPTION = "planted-30x/opt", "planted-80x'set"
ENVIRONMENT = {
    "ACME_API_TOKEN": "planted-40x&t",
    "DATABASE_URL": "postgresql://user:planted-50x@db.example/x",
    "AZURE_STORAGE_CONNECTION_STRING": (
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=planted60xAbCd/+==;EndpointSuffix=x"
    ),
    "ACME_PRIVATE_KEY": (
        "-----BEGIN PRIVATE KEY-----\nMIIEplanted70xAbCdEfGhIjKl\nplanted71xMnOpQrStUvWxYz0123\n-----END"
        " PRIVATE KEY-----"
    ),
    "SERVE_TOKEN": "planted-90x",
    "PGPASSWORD": "planted-95x",
}
SECRETS = [
    LAKE_SECRET,
    ACCESS,
    BUCKET_SECRET,
    OPTION,
    SET_OPTION,
    "planted-40x&t",
    "planted-50x",
    "planted60xAbCd/+==",
    "MIIEplanted70xAbCdEfGhIjKl",
    "planted71xMnOpQrStUvWxYz0123",
    "planted-90x",
    "planted-95x",
]
NET = '''
import base64, json, os
from urllib.parse import quote

import torch
from torch import nn


class Net(nn.Module):
    """It asks a service; where that refuses, its error has whatever it was given."""

    def __init__(self, specs, api_key, password):
        super().__init__()
        self.given, self.steps = [api_key, password], 0
        self.line = nn.Linear(1, 1)

    def forward(self, batch):
        self.steps += self.training
        if os.environ.get("ACME_REFUSES") and self.steps > 3:
            known = [*self.given, *json.loads(os.environ["ACME_REFUSES"])]
            told = []
            for s in known:
                told += [s, quote(s, safe=""), json.dumps(s), s[:9] + "\\n   " + s[9:]]
                told.append(base64.b64encode(f"me:{s}".encode()).decode())
            raise RuntimeError("the service refused " + " and ".join(told))
        return {"y": self.line(batch["a.value"].unsqueeze(1))[:, 0]}
'''


def spellings(secret: str) -> Iterator[str]:
    yield from (
        secret,
        quote(secret, safe=""),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        html.escape(secret),
    )
    content = secret.encode()
    yield from (base64.b64encode(content).decode().rstrip("=")[:-1], content.hex())
    yield base64.b64encode(b"me:" + content).decode().rstrip("=")[4:-1]


def seen(content: bytes) -> list[str]:
    """The secrets that stand in bytes, in whatever spelling, broken over lines or not, in one byte a
    character or two.
    """
    joined = re.sub(rb"[\s\0]+", b"", content)
    return [
        secret
        for secret in SECRETS
        for form in spellings(secret)
        if form.encode() in content or re.sub(rb"\s", b"", form.encode()) in joined
    ]


class Journey:
    """A folder with a recipe, and commands that run in it."""

    def __init__(self, folder: Path, source: str, line: Line) -> None:
        self.folder = folder
        self.store = line.store
        self.url = line.store.replace(
            "s3://", f"s3://{ACCESS}:{quote(BUCKET_SECRET, safe='')}@"
        )
        self.said = b""
        (folder / "acme_net.py").write_text(NET, "utf-8")
        (folder / "recipe.yaml").write_text(
            f"""
name: far
source: {{type: files, path: "{source}"}}
key: id
inputs: {{a: number}}
targets: {{y: {{type: binary, positive: "yes"}}}}
train: {{epochs: 4, batch_size: 16, checkpoint: {{every_steps: 2}}}}
model: {{type: "acme_net:Net", arguments: {{api_key: "{OPTION}", password: "x"}}}}
evaluate: {{baselines: false, bootstrap: 0}}
launcher: {{type: local, processes: 2, threads: 1}}
trackers: [tensorboard]
""",
            "utf-8",
        )

    def command(
        self, *words: str, **more: str | None
    ) -> subprocess.CompletedProcess[bytes]:
        environment = {
            **os.environ,
            **ENVIRONMENT,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PENSTOCK_STATE": str(self.folder / "state"),
            **more,
        }
        done = subprocess.run(
            [sys.executable, "-m", "penstock", *words],
            cwd=self.folder,
            capture_output=True,
            timeout=HANG_SECONDS,
            check=False,
            env={name: value for name, value in environment.items() if value is not None},
        )
        self.said += done.stdout + done.stderr
        assert b"Traceback (most" not in done.stdout + done.stderr
        return done


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Line]:
    with faulty_s3(monkeypatch, tmp_path) as line:
        monkeypatch.setenv("PENSTOCK_REMOTE_TIMEOUT", "20")
        yield line


def objects(line: Line) -> dict[str, bytes]:
    """Every object of the bucket."""
    import s3fs

    system = s3fs.S3FileSystem()
    return {
        name: name.encode() + b"\n" + system.cat_file(name)
        for name in system.find(line.bucket)
    }


def asked(url: str, token: str | None = None, body: bytes | None = None) -> bytes:
    """An answer of the server, head and body, whatever its status."""
    request = urllib.request.Request(
        url, data=body, headers={"Authorization": f"Bearer {token}"} if token else {}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(answer.headers).encode() + bytes(answer.read())
    except urllib.error.HTTPError as error:
        return str(error.headers).encode() + error.read()


def of_the_server(
    journey: Journey, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> bytes:
    """What a server says at all of its addresses, to whoever has the token and to whoever has not, and its
    events.
    """
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    heard: list[Event] = []
    opened = Bundle.open(bundle, store=Store(journey.store), trust=False)
    said = b""
    with Serving(
        opened, Serve(port=0, token_env="SERVE_TOKEN"), Events(heard.append)
    ) as running:
        for path in (
            "/",
            "/docs",
            "/openapi.json",
            "/metrics",
            "/v2",
            f"/v2/models/{opened.facts()['name']}",
            "/v2/health/ready",
            "/nowhere",
        ):
            for token in (None, "wrong-planted", "planted-90x"):
                said += asked(f"{running.url}{path}", token)
        bad = json.dumps(
            [
                {
                    "id": "1",
                    "a": "http://me:planted-50x@h?sig=planted-95x",
                    "api_key": OPTION,
                }
            ]
        ).encode()
        said += b"".join(
            asked(f"{running.url}/predict", "planted-90x", body)
            for body in (bad, b"{", b"[]")
        )
    return said + repr([event.line() for event in heard]).encode()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_secrets_and_a_whole_journey_on_a_bucket(lake, line, tmp_path, monkeypatch):  # noqa: F811
    journey = Journey(tmp_path, f"http://me:{quote(LAKE_SECRET)}@{lake}/rows.csv", line)
    given = ["--set", f'model.arguments.password="{SET_OPTION}"']
    # It fails in two processes, with everything in its error: a crash file, a diary, what the terminal says.
    failed = journey.command(
        "run",
        "recipe.yaml",
        *given,
        "--store",
        journey.url,
        "--json",
        ACME_REFUSES=json.dumps(SECRETS),
    )
    assert failed.returncode in (1, 4), failed.stderr
    assert b"the service refused" in failed.stderr
    assert not seen(journey.said)
    recipe = (tmp_path / "recipe.yaml").read_text("utf-8")
    (tmp_path / "recipe.yaml").unlink()  # what is left was written by Penstock
    (run,) = json.loads(
        journey.command("list", "runs", "--store", journey.url, "--json").stdout
    )
    # It goes on in another process, with what the environment has; without, it says what to set.
    names = {
        "PENSTOCK_SECRET_API_KEY": OPTION,
        "PENSTOCK_SECRET_PASSWORD": SET_OPTION,
        "PENSTOCK_CREDENTIALS": f"http://me:{quote(LAKE_SECRET)}@{lake}",
    }
    for missing in ("PENSTOCK_SECRET_API_KEY", "PENSTOCK_SECRET_PASSWORD"):
        lacking = journey.command(
            "resume",
            run["reference"],
            "--store",
            journey.store,
            **{**names, missing: None},
        )
        assert lacking.returncode == 2 and missing.encode() in lacking.stderr, (
            lacking.stderr
        )
    resumed = journey.command(
        "resume", run["reference"], "--store", journey.url, "--json", **names
    )
    assert resumed.returncode == 0, resumed.stderr
    outcome = json.loads(resumed.stdout)
    assert outcome["run"] == run["reference"]
    answers = journey.command(
        "predict",
        outcome["bundle"],
        f"http://me:{quote(LAKE_SECRET)}@{lake}/rows.csv",
        "-o",
        "answers.csv",
        "--store",
        journey.url,
        **names,
    )
    assert answers.returncode == 0, answers.stderr
    for reference in (outcome["run"], outcome["bundle"], outcome["dataset"]):
        assert (
            journey.command("show", reference, "--store", journey.store).returncode == 0
        )
        assert (
            journey.command(
                "show", reference, "--store", journey.store, "--json"
            ).returncode
            == 0
        )
    served = of_the_server(journey, outcome["bundle"], monkeypatch)
    assert b"penstock_" in served and b"openapi" in served
    (tmp_path / "acme_net.py").write_bytes(b"")
    # -- what it has left: the bucket, this machine's mirror and crash files, what was said
    kept = {**objects(line), "said": journey.said, "served": served}
    kept |= {
        str(path): str(path).encode() + path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert not {name: found for name, content in kept.items() if (found := seen(content))}
    for file in (
        "recipe.yaml",
        "run.json",
        "events",
        "report.md",
        "card.md",
        "tfevents",
        "world.json",
    ):
        assert any(file in name for name in kept), f"no {file} was looked into"
    assert any("crashes" in name for name in kept) or b"defect" not in journey.said
    assert f"http://me:***@{lake}" in "".join(
        content.decode("utf-8", "replace") for content in kept.values()
    )
    assert OPTION in recipe, "it was there to be seen"


def test_the_search_finds_what_it_looks_for():
    for secret in SECRETS:
        for form in spellings(secret):
            assert secret in seen(b"x\n" + form.encode() + b"\ny")
        assert secret in seen(f"a {secret[:6]}\n  {secret[6:]} b".encode())
    assert not seen(ROWS.encode())
