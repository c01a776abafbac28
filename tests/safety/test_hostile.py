"""What somebody else wrote is read, never obeyed: by a terminal, by a viewer of Markdown, by whoever opens a
bundle.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from penstock import api
from penstock.bundle.bundle import Bundle
from penstock.cli import main
from penstock.core.errors import BundleError, PenstockError
from penstock.core.events import Events
from penstock.core.store import MANIFEST, seal
from penstock.core.visible import code, prose, visible
from penstock.evaluate.report import report_markdown
from penstock.recipe.bundled import bundle_id
from penstock.terminal.console import Console
from penstock.terminal.store_screens import show_screen
from penstock.terminal.streams import safe_streams

GOLDEN = next(
    (Path(__file__).resolve().parents[1] / "golden" / "store-1" / "bundles").iterdir()
)
OBEYED = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)
ESCAPES = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\x08\x08\x08",
    "\rover",
    "\u202egnp",
    "\u2066x\u2069",
    "\x7f",
    "\u2028",
    "\x00",
]

# -- the terminal --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("escape", ESCAPES[:-1], ids=ascii)
def test_no_text_from_elsewhere_commands_the_terminal(escape, tmp_path, capsys):
    """Arguments, words of a recipe, and names of columns come back in errors and results."""
    (tmp_path / "rows.csv").write_text(
        f'a,"b{escape}b"\n' + "".join(f"{i},{i % 3}\n" for i in range(30)), "utf-8"
    )
    (tmp_path / "r.json").write_text(
        json.dumps(
            {
                "source": {"type": "files", "path": "rows.csv"},
                "inputs": {f"a{escape}": "number"},
                "targets": {"a": f"number{escape}"},
            }
        )
    )
    for given in (
        ["show", f"bundle-{escape}"],
        ["list", "runs", "--store", f"{tmp_path}/x{escape}"],
        ["check", f"{tmp_path}/{escape}.yaml"],
        [f"x{escape}"],
        ["show", "x", f"--{escape}"],
        ["check", str(tmp_path / "r.json")],
        ["check", str(tmp_path / "r.json"), "--set", f"train.{escape}=1"],
        ["init", str(tmp_path / "rows.csv"), "--target", "c", "--json"],
        ["init", str(tmp_path / "rows.csv"), "--target", "c"],
        ["init", str(tmp_path / "rows.csv")],
    ):
        with contextlib.suppress(SystemExit):
            main(given)
        out, err = capsys.readouterr()
        assert out + err and not OBEYED.search(out + err), (given, out, err)
        if "--json" in given:
            assert json.loads(out)["error"]


@pytest.mark.parametrize("live", [False, True])
def test_what_events_say_neither(live, monkeypatch):
    """Colours and the moving line are the console's own; in what it is told there are none."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: live, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream)
    with safe_streams():
        events = Events(Console(sys.stderr))
        for escape in ESCAPES:
            events.warn(f"<{escape}>")
            events.say(f"<{escape}>")
        sys.stderr.write("plain\x1b[31m")
    written = stream.getvalue()
    assert ("\x1b[" in written) is live and "\x1b[31m" not in written
    assert not any(escape in written for escape in ESCAPES) and "\\u001b[2J" in written


def test_what_is_shown_is_the_same_text():
    assert visible("a\tb\nÆ雪") == "a\tb\nÆ雪"
    for escape in ESCAPES:
        assert json.loads(f'"{visible(escape)}"') == escape


# -- places --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["list runs", "init x.csv", "predict bundle-0 x.csv -o y.csv"]
)
def test_a_working_directory_that_is_gone_is_a_sentence(command, tmp_path):
    (tmp_path / "gone").mkdir()
    said = subprocess.run(
        ["sh", "-c", f'rmdir ../gone && exec "$0" -m penstock {command}', sys.executable],
        cwd=tmp_path / "gone",
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(api.__file__).parents[1])},
        check=False,
    )
    assert (
        said.returncode == 2 and "working directory was removed or moved" in said.stderr
    ), said.stderr


def test_an_output_goes_where_it_says(tmp_path, monkeypatch, capsys):
    """Never into a folder that is called `file:` or `s3:`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text(
        "a,b\n" + "".join(f"{i},{i % 3}\n" for i in range(30)), "utf-8"
    )
    assert (
        main(["schema", "-o", f"file://{tmp_path}/schema.json"])
        == main(["init", "rows.csv", "-o", f"file://{tmp_path}/r.yaml"])
        == 0
    )
    assert (
        main(["init", "rows.csv", "-o", "s3://bucket/r.yaml"])
        == main(["schema", "-o", "s3://bucket/s.json"])
        == 2
    )
    bundle = Bundle.open(GOLDEN)
    (tmp_path / "new.jsonl").write_text(json.dumps(dict.fromkeys(bundle.columns)) + "\n")
    assert (
        api.predict(
            bundle, source=tmp_path / "new.jsonl", output=f"file://{tmp_path}/out.csv"
        ).rows
        == 1
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "new.jsonl",
        "out.csv",
        "r.yaml",
        "rows.csv",
        "schema.json",
    ]
    assert "not on this machine" in capsys.readouterr().err


@pytest.mark.skipif(
    sys.platform != "linux", reason="other systems refuse such a name themselves"
)
def test_a_name_that_is_not_utf_8(tmp_path, capsys):
    (tmp_path / "lake").mkdir()
    named = os.path.join(os.fsencode(tmp_path / "lake"), b"\xff.csv")
    Path(os.fsdecode(named)).write_text("a,b\n1,2\n")
    recipe = tmp_path / "r.json"
    for path in ("lake", "lake/*.csv"):
        recipe.write_text(json.dumps({"source": {"type": "files", "path": path}}))
        assert main(["prepare", str(recipe), "--store", str(tmp_path / "store")]) == 2
        assert "whose name is not UTF-8" in capsys.readouterr().err
    assert main(["schema", "-o", os.fsdecode(named.replace(b".csv", b".json"))]) == 0


# -- Markdown ------------------------------------------------------------------------------------------------

MARKUP = [
    "<img src=x onerror=alert(1)>",
    "</td><script>alert(1)</script>",
    "\\<b>x</b>",
    "\\\\<b>x</b>",
    "[a](javascript:alert(1))",
    "![a](http://x/y.png)",
    "`<b>`",
    "``<b>`",
    "`",
    "&lt;b&gt;",
    "&#60;b&#62;",
    "<!-- x",
    "<javascript:x>",
    "a\n\n<b>\n\n# b",
    "a\n- b",
    "|a|b|",
    "<=50K",
    ">50K",
    "a*b*c",
    "[a]: http://x",
    "<https://x>",
    " ",
]


def tags(text: str) -> list[str]:
    """What a viewer makes of Markdown, HTML of its author's included."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    return [
        t.type
        for outer in tokens
        for t in [outer, *(outer.children or [])]
        if t.type in ("html_block", "html_inline", "link_open", "image", "entity")
    ]


@pytest.mark.parametrize("text", MARKUP, ids=ascii)
def test_a_name_in_markdown_is_that_name(text):
    for written in (
        f"- **{prose(text)}**",
        f"## x {prose(text)}",
        f"| a |\n|---|\n| {prose(text).replace('|', chr(92) + '|')} |",
        f"- {code(text)} x",
        f"a {code(text)}",
    ):
        assert tags(written) == [], written
    shown = (
        MarkdownIt("commonmark", {"html": True})
        .parseInline(f"x {code(text)} x")[0]
        .children
    )
    assert [t.content.strip() for t in shown if t.type == "code_inline"] == [
        re.sub(r"\s*\n\s*", " ", text).strip()
    ]


def test_a_report_holds_no_markup_of_the_data():
    evil = MARKUP[0]
    figures = {evil: {"accuracy": 0.5, "confusion_matrix": [[1, 2], [3, 4]]}}
    text = report_markdown(
        {
            "split": "test",
            "verdict": f"{evil}: no signal",
            "rows": 3,
            "refused": 0,
            "notes": [evil],
            "overlap": {evil: 3},
            "metrics": {"test": figures},
            "trivial": {evil: f"always {evil}"},
            "classes": {evil: [evil, "b"]},
            "confidence": 0.95,
            "classical": {"model": "x", "said": evil},
            "slices": [
                {
                    "declared": True,
                    "target": evil,
                    "column": evil,
                    "value": evil,
                    "rows": 1,
                    "metric": "accuracy",
                    "value_of_metric": 0.5,
                    "whole": 0.5,
                }
            ],
        }
    )
    assert text.count("onerror") >= 9 and tags(text) == []


# -- bundles -------------------------------------------------------------------------------------------------


def reseal(folder: Path) -> Path:
    """The id anew from the content, as anybody can: the checksums and the id of what lies there are right."""
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    rest = {
        word: value for word, value in manifest.items() if word not in ("format", "files")
    }
    rest["id"] = bundle_id(folder, seal(folder, rest)["files"])
    seal(folder, rest)
    named = folder.with_name(rest["id"])
    return folder if named == folder else folder.rename(named)


def steps_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))[:4]
        if isinstance(value, list)
        else []
    )
    return [
        found
        for key, item in inner
        for found in [(*path, key), *steps_of(item, (*path, key))]
    ]


ODD = [
    None,
    True,
    -1,
    10**400,
    1.5,
    "",
    "x",
    "\x1b[31m",
    "x" * 50_000,
    [],
    [None],
    [[]],
    {},
    {"type": "x"},
    {"type": "os.system"},
    "../x",
    base64.b64encode(b"x" * 9).decode(),
]


def edit(data: Any, chance: random.Random) -> str:
    where = chance.choice(
        [found for found in steps_of(data) if len(found) <= chance.choice([1, 2, 9])]
    )
    at = data
    for step in where[:-1]:
        at = at[step]
    if chance.random() < 0.3:
        del at[where[-1]]
        return f"{where} removed"
    at[where[-1]] = chance.choice(ODD)
    return f"{where} = {at[where[-1]]!r}"[:200]


def tried(count: int, seed: int, tmp_path: Path) -> int:
    """How many of `count` edited bundles were refused; whatever else they do is no trouble."""
    chance, refused = random.Random(seed), 0
    rows = [{"age": 40}]
    for number in range(count):
        folder = tmp_path / str(number) / "bundle"
        shutil.copytree(GOLDEN, folder)
        name = chance.choice(
            ["bundle.json", "bundle.json", "fitted.json", "decision.json"]
        )
        data = json.loads((folder / name).read_text("utf-8"))
        what = f"{name}: {edit(data, chance)}"
        (folder / name).write_text(json.dumps(data))
        try:
            folder = reseal(folder)
        except PenstockError:
            continue
        for ask in (
            lambda f=folder: Bundle.open(f).predict(rows),
            lambda f=folder: show_screen(
                api.show(f"bundle-{f.name}", store=f.parents[1])
            ),
            lambda f=folder: Bundle.open(f, replay=False).facts(),
        ):
            told = None
            try:
                ask()
            except PenstockError as error:
                told = error
            except Exception as error:
                raise AssertionError(what) from error
            assert told is None or (told.exit_code == 2 and len(str(told)) < 3_500), what
            refused += told is not None
    return refused


def test_a_bundle_of_somebody_else_s_making_is_told(tmp_path):
    assert tried(15, 3, tmp_path) > 10


@pytest.mark.slow
def test_many_bundles_of_somebody_else_s_making_are_told(tmp_path):
    assert tried(500, 4, tmp_path) > 400


def test_without_golden_rows_it_is_tried_all_the_same(tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(GOLDEN, folder)
    data = json.loads((folder / "bundle.json").read_text("utf-8"))
    del data["programs"]["main"]["inputs"][0]["name"]
    (folder / "bundle.json").write_text(json.dumps(data))
    with pytest.raises(BundleError, match="does not fit together"):
        Bundle.open(reseal(folder))
