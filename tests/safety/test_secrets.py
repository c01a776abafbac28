"""Secrets of many forms, planted wherever they can be given: none is seen in what leaves the process or is
written down.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from penstock import api
from penstock.cli import main
from penstock.core import credentials
from penstock.core.errors import UserError
from penstock.core.events import Event, Events
from penstock.core.store import Store
from penstock.recipe.text import recipe_text
from penstock.run import Run

ROWS = "id,a,b,y\n" + "".join(
    f"{i},{i % 7},{'xyz'[i % 3]},{'yes' if i % 7 > 3 else 'no'}\n" for i in range(120)
)
REST = """
key: id
inputs: {a: number, b: category}
targets: {y: {type: binary, positive: "yes"}}
train: {epochs: 1, batch_size: 32}
model: {combiner: {type: mlp, width: 8, depth: 1}}
evaluate: {baselines: false, bootstrap: 0}
launcher: {type: local, processes: 1, threads: 1}
"""
FORMS = {
    "userinfo": ("http://me:planted-1x@127.0.0.1:9/rows.csv", ["planted-1x"]),
    "encoded": (
        "http://me:pl%40nted%2F2x@127.0.0.1:9/rows.csv",
        ["pl@nted/2x", "pl%40nted%2F2x"],
    ),
    "unencoded": (
        "s3://AKIDPLANTED3:wJal/planted+3x@no-such-bucket/rows.csv",
        ["wJal/planted+3x", "planted+3x", "AKIDPLANTED3"],
    ),
    "unicode": (
        "http://me:plånted4x@127.0.0.1:9/rows.csv",
        ["plånted4x", "pl%C3%A5nted4x"],
    ),
    "short": ("http://me:p5!x@127.0.0.1:9/rows.csv", ["p5!x"]),
    "signature": (
        "http://127.0.0.1:9/rows.csv?sv=1&sig=planted6%2Bx",
        ["planted6%2Bx", "planted6+x"],
    ),
    "amazon": (
        "http://127.0.0.1:9/rows.csv?X-Amz-Signature=planted7x&X-Amz-Security-Token=planted7y",
        ["planted7x", "planted7y"],
    ),
    "token": ("http://127.0.0.1:9/rows.csv?access_token=planted8x", ["planted8x"]),
    "userinfo token": ("http://PlantedToken9x@127.0.0.1:9/rows.csv", ["PlantedToken9x"]),
    "database": ("postgresql://me:planted10x@127.0.0.1:9/db", ["planted10x"]),
    "inside": (
        "zip://rows.csv::http://me:planted11x@127.0.0.1:9/rows.zip",
        ["planted11x"],
    ),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch, tmp_path):
    """Nothing is waited for, and nothing of this machine's own is used."""
    settings = {
        "PENSTOCK_CACHE": str(tmp_path / "cache"),
        "PENSTOCK_REMOTE_ATTEMPTS": "1",
        "PENSTOCK_REMOTE_TIMEOUT": "1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(credentials.VARIABLE, raising=False)


def written(folder: Path) -> str:
    """All that lies below a folder, names and contents."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return "\n".join(
        f"{path}\n{path.read_bytes().decode('utf-8', 'replace')}" for path in files
    )


def commands(url: str, recipe: str) -> Iterator[list[str]]:
    yield ["init", url, "--target", "y"]
    for verb in ("check", "plan", "prepare"):
        yield [verb, recipe]
    yield ["check", recipe, "--set", f"join.0.source.path={url}"]
    yield ["list", "runs", "--store", url]
    yield ["show", "run-x", "--store", url]
    yield ["resume", "run-x", "--store", url]
    yield ["predict", "bundle-0", url, "-o", url, "--store", url]
    yield ["launch", recipe, "--print", "slurm", "--store", url]
    yield ["check", recipe, "--set", f"source={url}", "--set", f"train.lr={url}"]
    yield ["check", recipe, "--storage-password", url, "--json"]


@pytest.mark.parametrize("form", FORMS)
def test_no_command_tells_a_secret(form, tmp_path, capsys):
    pytest.importorskip("s3fs")
    pytest.importorskip("aiohttp")
    url, secrets = FORMS[form]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"source: {{type: files, path: {json.dumps(url, ensure_ascii=False)}}}\n{REST}",
        "utf-8",
    )
    for words in commands(url, str(recipe)):
        with contextlib.suppress(SystemExit):  # argparse's way out
            main(words)
        said = capsys.readouterr()
        for secret in secrets:
            assert secret not in said.out + said.err, words
        assert "Traceback" not in said.err
    recipe.unlink()
    left = written(tmp_path)
    assert not [secret for secret in secrets if secret in left]


@pytest.mark.parametrize("form", FORMS)
def test_no_error_of_python_tells_a_secret(form, tmp_path):
    url, secrets = FORMS[form]
    for call in (
        lambda: api.check({"source": {"type": "files", "path": url}}),
        lambda: api.list_artefacts("runs", store=url),
    ):
        told = ""
        try:
            call()
        except UserError as error:
            told = (
                f"{error!r} {error} {getattr(error, 'problems', '')}"
                f" {''.join(traceback.format_exception(error))}"
            )
        assert not [secret for secret in secrets if secret in told]


@pytest.mark.parametrize(
    "words",
    [
        {"storage_options": {"key": "AKIDX", "secret": "planted-opt"}},
        {"password": "planted-opt"},
        {"token": "planted-opt"},
    ],
)
def test_options_that_no_source_has_are_refused_without_their_values(words, tmp_path):
    with pytest.raises(UserError) as caught:
        api.check({"source": {"type": "files", "path": str(tmp_path), **words}})
    assert "planted-opt" not in str(caught.value)


# -- a whole journey with a password -------------------------------------------------------------------------


class _Lake(BaseHTTPRequestHandler):
    """A file for whoever knows the password."""

    def do_GET(self) -> None:
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        knows = scheme == "Basic" and base64.b64decode(given) in (
            "me:sésame-77x".encode(),
            "me:sésame-77x".encode("latin-1"),
        )
        body = ROWS.encode() if knows else b"no"
        self.send_response(200 if knows else 401)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def lake() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Lake)
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    ).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def declared(url: str, store: Path) -> dict[str, object]:
    import yaml

    return {
        **yaml.safe_load(REST),
        "name": "far",
        "source": {"type": "files", "path": url},
        "store": str(store),
    }


def test_a_dataset_is_the_same_with_the_password_in_the_url_and_in_the_environment(
    lake, tmp_path, monkeypatch
):
    pytest.importorskip("aiohttp")
    url = f"http://me:s%C3%A9same-77x@{lake}/rows.csv"
    heard: list[Event] = []
    first = api.prepare(declared(url, tmp_path / "one"), events=Events(heard.append))
    assert first.counts["in"] == 120
    kept = written(tmp_path)
    assert not [
        secret
        for secret in ("sésame-77x", "s%C3%A9same-77x")
        if secret in kept + repr(heard)
    ]
    assert f"me:***@{lake}" in kept
    blanked = f"http://me:***@{lake}/rows.csv"
    with pytest.raises(UserError, match=f"Set {credentials.VARIABLE}"):
        api.prepare(declared(blanked, tmp_path / "two"))
    monkeypatch.setenv(credentials.VARIABLE, f"http://me:s%C3%A9same-77x@{lake}")
    assert api.prepare(declared(blanked, tmp_path / "two")).reference == first.reference


def test_a_run_written_down_is_read_again_with_what_the_environment_has(
    tmp_path, monkeypatch
):
    store = Store(tmp_path / "store")
    words = declared("http://me:planted-r1@127.0.0.1:9/rows.csv", tmp_path / "store")
    recipe = api.as_recipe(
        {
            **words,
            "model": {
                "type": "acme:Net",
                "arguments": {"api_key": "planted-r2", "pad_token": "<pad>"},
            },
        }
    )
    monkeypatch.setattr(
        "sys.argv",
        [
            "penstock",
            "run",
            "r.yaml",
            "--set",
            "source.path=http://me:planted-r1@h/x",
            "--password",
            "planted-r3",
        ],
    )
    run = Run.create(store, recipe=recipe, dataset="far@0", feed="f", key="k")
    run.record(
        {"status": "failed", "error": "401 for http://me:planted-r1@127.0.0.1:9/rows.csv"}
    )
    kept = written(run.path)
    assert "planted-r" not in kept and "***" in kept and "<pad>" in kept
    again = Run.open(
        store, reference=run.id
    ).recipe()  # this process has been given the key
    assert again.model.arguments["api_key"] == "planted-r2"
    assert (
        recipe_text(again) == recipe_text(recipe)
        and again.fingerprint() == recipe.fingerprint()
    )
    monkeypatch.setattr(credentials, "_options", {})
    with pytest.raises(UserError, match="Set PENSTOCK_SECRET_API_KEY"):
        api.resume(run.id, store=store, trust=True)
    monkeypatch.setenv("PENSTOCK_SECRET_API_KEY", "planted-r2")
    assert (
        Run.open(store, reference=run.id).recipe().model.arguments["api_key"]
        == "planted-r2"
    )


def test_a_column_may_be_called_password(tmp_path, capsys):
    (tmp_path / "lake.csv").write_text(
        ROWS.replace("id,a,b,y", "id,token,password,y"), "utf-8"
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"source: {{type: files, path: lake.csv}}\n{REST}".replace(
            "a: number, b: category", "token: number, password: category"
        ),
        "utf-8",
    )
    assert (
        main(["prepare", str(recipe), "--store", str(tmp_path / "store"), "--json"]) == 0
    )
    reference = json.loads(capsys.readouterr().out)["dataset"]
    assert main(["show", reference, "--store", str(tmp_path / "store"), "--json"]) == 0
    shown = capsys.readouterr().out
    assert "***" not in shown and json.loads(shown)["manifest"]["schema"]["password"]
    assert "password: category" in recipe_text(
        api.as_recipe(recipe)
    ) or "***" not in recipe_text(api.as_recipe(recipe))


def test_a_manifest_for_a_cluster_has_no_secret(tmp_path, monkeypatch):
    words = declared("https://me:planted-m1@host/rows.csv", tmp_path)
    with pytest.raises(UserError, match="password in a URL"):
        api.launch(words, scheduler="slurm")
    words["source"] = {"type": "files", "path": "https://me:***@host/rows.csv"}
    assert "https://me:***@host/rows.csv" in api.launch(words, scheduler="slurm")


@pytest.mark.slow
def test_no_secret_is_left_by_a_whole_journey(lake, tmp_path, monkeypatch, capsys):
    pytest.importorskip("aiohttp")
    url = f"http://me:s%C3%A9same-77x@{lake}/rows.csv"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"source: {{type: files, path: '{url}'}}\n{REST}", "utf-8")
    store = str(tmp_path / "store")
    assert main(["run", str(recipe), "--store", store, "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (
        main(
            [
                "predict",
                outcome["bundle"],
                url,
                "-o",
                str(tmp_path / "out.csv"),
                "--store",
                store,
            ]
        )
        == 0
    )
    for reference in (outcome["bundle"], outcome["run"], outcome["dataset"]):
        assert main(["show", reference, "--store", store]) == 0
    recipe.unlink()
    said = capsys.readouterr()
    left = written(tmp_path) + said.out + said.err
    assert not [secret for secret in ("sésame-77x", "s%C3%A9same-77x") if secret in left]
