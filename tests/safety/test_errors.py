"""Whatever happens, a command ends in a sentence and an exit code: defects, refusals of the system, streams
that take nothing.
"""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.cli import main
from penstock.contracts.amounts import parse_bytes
from penstock.core import last_resort
from penstock.core.errors import PenstockError, RequestError, StoreError, UserError
from penstock.core.events import Events
from penstock.formats.write import TableWriter
from penstock.pipeline.predict import Asked, predict_file
from penstock.recipe.schema import Serve
from penstock.serve.server import _listen

HANG_SECONDS = 240
LAKE = "id,a,b,y\n" + "".join(
    f"{i},{i % 7},{'xyz'[i % 3]},{'yes' if i % 7 > 3 else 'no'}\n" for i in range(120)
)
RECIPE = """
name: small
source: {type: files, path: lake.csv}
key: id
inputs: {a: number, b: category}
targets: {y: {type: binary, positive: "yes"}}
train: {epochs: 1, batch_size: 32}
model: {combiner: {type: mlp, width: 8, depth: 1}}
evaluate: {baselines: false, bootstrap: 0}
launcher: {type: local, processes: 1, threads: 1}
trackers: []
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "lake.csv").write_text(LAKE, "utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, "utf-8")
    return tmp_path


def environment(folder: Path, **more: str) -> dict[str, str]:
    # One thread for each library: under a limit of addresses their stacks would count.
    threads = {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
    return {**os.environ, "PENSTOCK_CACHE": str(folder / "cache"), **threads, **more}


def shell(folder: Path, line: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A command line in a shell, which can close and redirect what Python's own subprocess cannot."""
    prefix = f'penstock() {{ "{sys.executable}" -m penstock "$@"; }}\n'
    return subprocess.run(
        ["bash", "-c", prefix + line],
        cwd=folder,
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


def python(folder: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


def is_sentence(text: str) -> bool:
    return (
        "Traceback" not in text
        and "Exception ignored" not in text
        and "penstock:" in text
    )


# -- the last resort -----------------------------------------------------------------------------------------

BROKEN = """
import sys
from penstock import api, cli

def broken(*_, **__):
    raise ZeroDivisionError("reading https://me:hunter2x@host/rows.csv went wrong")

api.list_artefacts = broken
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_defect_is_one_sentence_with_a_reference_and_its_traceback_is_kept_for_its_user_alone(
    tmp_path,
):
    ended = python(tmp_path, BROKEN, "list", "runs")
    assert ended.returncode == 1 and ended.stdout == ""
    assert is_sentence(ended.stderr) and len(ended.stderr.strip().splitlines()) == 1
    reference = re.search(r"P-[0-9a-f]{6}", ended.stderr)
    assert reference is not None
    kept = tmp_path / "cache" / "crashes" / f"{reference[0]}.txt"
    text = kept.read_text("utf-8")
    assert "ZeroDivisionError" in text and "Traceback" in text and reference[0] in text
    assert "hunter2x" not in text + ended.stderr
    assert (
        stat.S_IMODE(kept.stat().st_mode) == 0o600
        and stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    )
    again = python(tmp_path, BROKEN, "list", "runs")
    assert reference[0] in again.stderr and len(list(kept.parent.iterdir())) == 1


def test_a_defect_is_one_json_object_where_json_is_asked_for(tmp_path):
    ended = python(tmp_path, BROKEN, "list", "runs", "--json")
    told = json.loads(ended.stdout)
    assert ended.returncode == 1 and told["error"] == "ZeroDivisionError"
    assert (
        re.fullmatch(r"P-[0-9a-f]{6}", told["reference"])
        and told["reference"] in told["message"]
    )
    assert "hunter2x" not in ended.stdout


def test_a_reference_is_the_same_for_the_same_defect_and_another_for_another(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path))

    def fail(error: Exception) -> str:
        try:
            raise error
        except Exception as caught:  # noqa: BLE001 - the error is the test's own
            return last_resort.keep(caught)[0]

    assert fail(ValueError("one")) == fail(ValueError("two")) != fail(KeyError("one"))


def test_an_error_of_ours_that_is_a_defect_keeps_its_traceback_too(tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path))
    told = last_resort.tell(
        PenstockError("rows do not add up. This is a defect of Penstock.")
    )
    assert (
        told.exit_code == 1
        and told.reference
        and (tmp_path / "crashes" / f"{told.reference}.txt").is_file()
    )


def test_a_traceback_that_cannot_be_kept_is_said(tmp_path, monkeypatch):
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    monkeypatch.setenv("PENSTOCK_CACHE", str(blocked))
    monkeypatch.setattr(last_resort.tempfile, "gettempdir", lambda: str(blocked))
    told = last_resort.tell(ValueError("x"))
    assert (
        told.exit_code == 1
        and "could not be kept" in told.message
        and "PENSTOCK_CACHE" in told.message
    )


def test_nobody_can_lie_in_wait_for_a_traceback(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "crashes").symlink_to(elsewhere)
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path))
    monkeypatch.setattr(
        last_resort.tempfile, "gettempdir", lambda: str(tmp_path / "temporary")
    )
    last_resort.tell(ValueError("x"))
    assert not list(elsewhere.iterdir()) and list(
        (tmp_path / "temporary").rglob("P-*.txt")
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "memory ran out"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to"
                " allocate"
            ),
            "memory ran out",
        ),
        (RuntimeError("can't start new thread"), "memory ran out"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory ran out"),
        (OSError(errno.EFBIG, "File too large"), "larger than the system"),
        (
            RuntimeError("IO Error: Could not write file: File too large"),
            "larger than the system",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), "the disk is full"),
        (OSError(errno.EMFILE, "Too many open files"), "too many files"),
        (OSError(errno.EROFS, "Read-only file system", "/x/y"), "read-only"),
        (OSError(errno.EIO, "Input/output error"), "The disk reports"),
    ],
)
def test_what_the_system_refuses_is_no_defect(error, said):
    told = last_resort.tell(error)
    assert said in told.message and told.exit_code == 2 and told.reference is None
    outer = ValueError("in between")
    outer.__cause__ = error
    assert said in last_resort.tell(outer).message


# -- streams that take nothing -------------------------------------------------------------------------------

COMMANDS = [
    "schema",
    "list runs",
    "check recipe.yaml",
    "plan recipe.yaml",
    "init lake.csv --target y",
    "--help",
    "--version",
    "check --help",
]
needs_full = pytest.mark.skipif(
    not os.path.exists("/dev/full"), reason="this system has no /dev/full"
)


@needs_full
@pytest.mark.parametrize("command", ["schema", "list runs --json", "--help"])
def test_a_full_device_for_the_result_is_a_sentence(place, command):
    ended = shell(place, f"penstock {command} > /dev/full")
    assert (
        ended.returncode == 2
        and is_sentence(ended.stderr)
        and "no space left on device" in ended.stderr
    )


@pytest.mark.parametrize("command", ["schema", "list runs --json", "--help"])
def test_a_closed_standard_output_is_a_sentence(place, command):
    ended = shell(place, f"penstock {command} >&-")
    assert (
        ended.returncode == 2
        and is_sentence(ended.stderr)
        and "standard output (it is closed)" in ended.stderr
    )


@pytest.mark.parametrize(
    "way",
    [
        "2>&-",
        pytest.param("2>/dev/full", marks=pytest.mark.slow),
        pytest.param("2>&- <&-", marks=pytest.mark.slow),
    ],
)
def test_a_standard_error_that_takes_nothing_hides_no_result_and_ends_no_work(place, way):
    if "full" in way and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    ended = shell(place, f"penstock prepare recipe.yaml --json {way}")
    assert ended.returncode == 0 and json.loads(ended.stdout)["rows"]["in"] == 120
    failed = shell(place, f"penstock check none.yaml --json {way}")
    assert failed.returncode == 2 and json.loads(failed.stdout)["error"] == "RecipeError"


@pytest.mark.slow
def test_with_both_closed_the_exit_code_tells_and_no_file_becomes_a_stream(place):
    ended = shell(place, "penstock prepare recipe.yaml >&- 2>&- <&-; echo $?")
    assert ended.stdout.strip() == "2"
    whole = shell(place, "penstock prepare recipe.yaml --json")
    assert (
        json.loads(whole.stdout)["rows"]["in"] == 120
    )  # the dataset that was made then is whole


def test_a_reader_that_has_seen_enough_is_no_failure(place):
    ended = shell(place, 'penstock schema | head -c 5; echo " ${PIPESTATUS[0]}"')
    assert ended.stdout.endswith(" 0\n") and is_sentence(ended.stderr)


@needs_full
@pytest.mark.slow
@pytest.mark.parametrize("way", [">/dev/full", ">&-", "| true"])
def test_every_command_ends_in_a_sentence_whatever_its_output_is(place, way):
    assert shell(place, "penstock run recipe.yaml").returncode == 0
    bundle = next((place / "store" / "bundles").iterdir()).name
    run = next((place / "store" / "runs").iterdir()).name
    more = [
        f"show bundle-{bundle}",
        f"show {run}",
        "prepare recipe.yaml",
        f"predict bundle-{bundle} lake.csv -o out.csv",
        f"evaluate bundle-{bundle}",
        "run recipe.yaml",
        f"resume {run}",
        "launch recipe.yaml --print slurm",
    ]
    (place / "empty.csv").write_text("", "utf-8")
    (place / "header.csv").write_text("id,a,b\n", "utf-8")
    for name in ("empty", "header"):
        answered = shell(
            place, f"penstock predict bundle-{bundle} {name}.csv -o {name}-out.csv --json"
        )
        assert answered.returncode == 0 and json.loads(answered.stdout)["rows"] == 0
        assert (place / f"{name}-out.csv").read_text("utf-8").startswith('"y",')
    lines = [
        f'penstock {command} {way}; echo "${{PIPESTATUS[0]}} {command}" >&2'
        for command in [*COMMANDS, *more]
    ]
    ended = shell(place, "\n".join(lines))
    assert "Traceback" not in ended.stderr and "Exception ignored" not in ended.stderr
    codes = re.findall(r"^(\d+) (.+)$", ended.stderr, re.MULTILINE)
    assert len(codes) == len(lines)
    assert {code for code, _ in codes} <= {"0", "2"}


# -- limits of the system ------------------------------------------------------------------------------------


def limited(
    folder: Path, limits: dict[int, int], *arguments: str
) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        for name, amount in limits.items():
            resource.setrlimit(name, (amount, amount))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    return subprocess.run(
        [sys.executable, "-m", "penstock", *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        preexec_fn=limit,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "size_mib"),
    [
        ("schema", 300),
        ("list runs", 300),
        ("list runs", 700),
        ("prepare recipe.yaml", 450),
        ("prepare recipe.yaml", 1500),
        ("run recipe.yaml", 1000),
    ],
)
def test_a_limit_of_addresses_is_a_sentence(place, command, size_mib):
    ended = limited(place, {resource.RLIMIT_AS: size_mib << 20}, *command.split())
    assert ended.returncode in (0, 2)
    assert "Traceback" not in ended.stderr and "terminate" not in ended.stderr
    assert ended.returncode == 0 or "ulimit -v" in ended.stderr


@pytest.mark.parametrize("size_bytes", [0, 2_000])
def test_a_limit_on_the_size_of_files_is_a_sentence(place, size_bytes):
    ended = limited(place, {resource.RLIMIT_FSIZE: size_bytes}, "prepare", "recipe.yaml")
    assert is_sentence(ended.stderr) or ended.returncode == 0
    assert "Traceback" not in ended.stderr and "defect" not in ended.stderr
    assert ended.returncode in (0, 2)


@pytest.mark.parametrize(
    "amount",
    [
        "9" * 5_000,
        "9" * 30 + "TiB",
        2**70,
        10**400,
        "-1",
        "5 bananas",
        "",
        True,
        None,
        [1],
    ],
)
def test_what_is_no_amount_of_memory_is_refused(amount):
    with pytest.raises(ValueError, match="expected an amount of memory"):
        parse_bytes(amount)


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        ("-1", "expected an amount of memory such as 4GiB or 500MB; found '-1'"),
        (-1, "must be greater than 0; found -1"),
        ("0", "must be greater than 0; found '0'"),
        (
            "5 bananas",
            "expected an amount of memory such as 4GiB or 500MB; found '5 bananas'",
        ),
        ("1MiB", "must be at least 400 MiB"),
    ],
)
def test_a_ceiling_that_cannot_be_says_what_one_is(memory, said):
    asked = Asked("out.jsonl")
    with pytest.raises(RequestError) as raised:
        predict_file(None, None, asked, events=Events(), memory=memory)
    assert (
        str(raised.value).startswith(f"memory: {said}")
        and str(raised.value).count("found") == 1
    )


# -- what -o and --host name ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "output",
    ["memory://answers.csv", "MEMORY://x/answers.csv", "simplecache::memory://x.csv"],
)
def test_answers_that_nobody_could_read_are_refused(output, place, capsys):
    (place / "in.csv").write_text("a\n1\n")
    assert (
        main(
            [
                "predict",
                "bundle-0",
                str(place / "in.csv"),
                "-o",
                output,
                "--store",
                str(place / "store"),
            ]
        )
        == 2
    )
    assert "is memory of this process" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["init", "lake.csv", "--target", "y"], ["schema"]])
def test_an_output_that_cannot_be_written_speaks_of_o(words, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    for output in ("x" * 300, "lake.csv/x.yaml"):
        assert main([*words, "-o", output]) == 2
        told = capsys.readouterr().err
        assert "-o" in told and "--store" not in told, told
    with (
        pytest.raises(
            StoreError,
            match=r"too long \(300 bytes; file systems take 255\)\. Give a shorter one with -o",
        ),
        TableWriter("x" * 296 + ".csv"),
    ):
        pass


@pytest.mark.parametrize("host", ["h\udcff", "x" * 70 + ".example", "a..b", "\0"])
def test_a_host_that_is_none(host):
    with pytest.raises(UserError, match=r"cannot listen at .*Check serve\.host"):
        _listen(Serve(host=host, port=0))
