"""What several of these files share."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import api
from penstock.core.store import Store
from tests.faults import faulty_s3
from tests.safety.trusting import EXPECTED, GOLDEN


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def shared_store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The URL of an empty store that child processes see, too."""
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    if request.param == "folder":
        yield str(tmp_path / "store")
        return
    with faulty_s3(monkeypatch, tmp_path) as line:
        yield line.store


@pytest.fixture
def nothing_outside(tmp_path, monkeypatch) -> Iterator[Path]:
    """The roots lie in `inside`; whatever appears beside it, or changes there, has escaped."""
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "inside" / "cache"))
    monkeypatch.setenv("PENSTOCK_REMOTE_ATTEMPTS", "1")
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.txt").write_text("secret")

    def seen() -> dict[str, str]:
        files = [
            path
            for path in tmp_path.rglob("*")
            if tmp_path / "inside" not in (path, *path.parents)
        ]
        return {
            str(path): path.read_text("utf-8") if path.is_file() else "" for path in files
        }

    before = seen()
    yield tmp_path / "inside"
    assert seen() == before
    assert not Path("/tmp/planted-absolute").exists()


@pytest.fixture
def no_marker(tmp_path, monkeypatch) -> Iterator[Path]:
    """A file that planted code makes; the test fails where it is there at the end, unless the test has taken
    it away.
    """
    marker = tmp_path / "marker"
    monkeypatch.setenv("PENSTOCK_STATE", str(tmp_path / "state"))
    before = set(sys.modules), list(sys.path)
    yield marker
    for name in set(sys.modules) - before[0]:
        if name.startswith(("planted_", "acme_of_")):
            del sys.modules[name]
    sys.path[:] = before[1]
    assert not marker.exists(), "planted code was run"


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A folder with a recipe, its data, and a store in which all is done, of a user who has no code of their
    own.
    """
    folder = tmp_path_factory.mktemp("finished")
    # the golden store's own data, so that its dataset and run are found
    with open(folder / "t.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "age", "city", "seen", "pay"])
        for i in range(120):
            age = 18 + i * 7 % 60 if i % 11 else ""
            writer.writerow(
                [
                    i,
                    age,
                    ("Oslo", "Bergen", "Tromsø")[i % 3],
                    f"2026-01-{1 + i % 28:02d}",
                    "high" if (i * 7 % 60) > 25 else "low",
                ]
            )
        file.write("torn\n")
    shutil.copytree(GOLDEN, folder / "store")
    shutil.copyfile(
        folder / "store" / "runs" / EXPECTED["run"] / "recipe.yaml",
        folder / "recipe.yaml",
    )
    outcome = api.run(folder / "recipe.yaml", store=folder / "store")
    assert outcome.skipped["prepare"] and not outcome.skipped["pack"]
    (folder / "bundle").write_text(outcome.bundle.id)
    return folder


@pytest.fixture
def home(finished, tmp_path) -> tuple[Path, Store, str]:
    """A copy, to be tampered with: its folder, its store, and the id of its bundle."""
    folder = Path(shutil.copytree(finished, tmp_path / "home"))
    return folder, Store(folder / "store"), (folder / "bundle").read_text("utf-8")
