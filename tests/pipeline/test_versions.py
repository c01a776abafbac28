"""Versions have tags, which move on request only; and a lineage, both ways."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.cli import main
from penstock.core.errors import PenstockError, StoreError, UserError
from penstock.core.events import Events
from penstock.core.identity import fingerprint
from penstock.core.store import Store
from penstock.prepare.tags import set_tag, tagged, tags_of
from penstock.run import Run
from penstock.terminal.lineage_screen import lineage_screen

KEY = "0123456789abcdef"
VERSIONS = [f"people@{fingerprint('version', i)}" for i in range(3)]


@pytest.fixture(params=["folder", "bucket"])
def empty(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> Store:
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    if request.param == "folder":
        return Store(tmp_path / "store")
    return Store(f"memory://{fingerprint(str(tmp_path))}")


def test_a_tag_is_moved_on_request_alone(empty: Store) -> None:
    events = Events()
    set_tag(empty, VERSIONS[0], "gold", events)
    assert set_tag(empty, VERSIONS[0], "gold", events).before is None  # as it is
    with pytest.raises(UserError, match=r"stands for people@.*add --force"):
        set_tag(empty, VERSIONS[1], "gold", events)
    moved = set_tag(empty, VERSIONS[1], "gold", events, force=True)
    assert moved.to_dict() == {
        "reference": "people@gold",
        "dataset": VERSIONS[1],
        "before": VERSIONS[0],
    }
    set_tag(empty, VERSIONS[2], "v1.0", events)
    set_tag(empty, f"others@{KEY}", "gold", events)
    assert [(each.reference, each.dataset) for each in tags_of(empty)] == [
        ("others@gold", f"others@{KEY}"),
        ("people@gold", VERSIONS[1]),
        ("people@v1.0", VERSIONS[2]),
    ]
    gone = penstock.untag("people@gold", store=empty)
    assert gone.dataset == VERSIONS[1]
    assert [each.tag for each in penstock.tags("people", store=empty)] == ["v1.0"]
    with pytest.raises(UserError, match=r"no tag people@v1\. Did you mean 'v1.0'"):
        penstock.untag("people@v1", store=empty)


def test_of_many_that_set_a_tag_at_once_one_does(empty: Store) -> None:
    def put(version: str) -> str | None:
        try:
            return set_tag(empty, version, "gold", Events()).dataset
        except UserError:
            return None

    with ThreadPoolExecutor(len(VERSIONS)) as pool:
        won = [each for each in pool.map(put, VERSIONS) if each is not None]
    assert [f"people@{tagged(empty, 'people', 'gold')}"] == won


@pytest.mark.parametrize("tag", ["", "dead", "2026", "a/b", "../x", "a?b", "é", "x" * 65])
def test_what_is_no_tag_is_refused(tag: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be a tag: "):
        set_tag(Store(tmp_path), VERSIONS[0], tag, Events())
    assert tags_of(Store(tmp_path)) == []


def test_a_damaged_tag_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_text("tags/people/gold", text="../../etc\n")
    with pytest.raises(StoreError, match=r"people@gold .* is no id of a version"):
        tagged(store, "people", "gold")
    set_tag(store, VERSIONS[0], "gold", Events(), force=True)
    assert tagged(store, "people", "gold") == VERSIONS[0].partition("@")[2]


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A dataset, its feed, and what runs, bundles and reports say of themselves."""
    folder = tmp_path_factory.mktemp("lineage")
    for part in range(2):
        rows = "".join(f"{20 + i % 50},{'ny'[i % 2]}\n" for i in range(60))
        (folder / f"part-{part}.csv").write_text("age,income\n" + rows)
    recipe = {
        "name": "people",
        "source": {
            "type": "files",
            "path": [str(folder / f"part-{part}.csv") for part in range(2)],
        },
        "inputs": {"age": "number"},
        "targets": {"income": "binary"},
        "store": str(folder / "store"),
    }
    feed = penstock.encode(recipe)
    store = Store(recipe["store"])
    dataset = penstock.Dataset.open(store, reference="people")
    checked = penstock.check(recipe)
    run = Run.create(
        store, recipe=checked, dataset=dataset.reference, feed=feed.id, key=KEY
    )
    started = penstock.check({**recipe, "train": {"from": run.id}})
    other = Run.create(
        store,
        recipe=started,
        dataset=f"{dataset.reference}?sample=0.5&seed=0",
        feed="gone",
        key=KEY,
    )
    with store.draft(f"bundles/{KEY}", manifest={"name": "people", "run": run.id}):
        pass
    facts = {"bundle": f"bundle-{KEY}", "dataset": dataset.reference}
    with store.draft("reports/fedcba9876543210", manifest=facts):
        pass
    return {
        "folder": folder,
        "store": store,
        "dataset": dataset,
        "feed": feed,
        "run": run,
        "other": other,
    }


def test_a_tag_stands_for_its_version_wherever_a_dataset_is_named(
    journey: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    store, reference = journey["store"], journey["dataset"].reference
    made = penstock.tag("people", "first", store=store)
    assert (made.reference, made.dataset) == ("people@first", reference)
    assert penstock.Dataset.open(store, reference="people@first").reference == reference
    assert penstock.show("people@first", store=store)["tags"] == ["first"]
    rows = penstock.subset("people@first", where="age > 30", store=store)
    # What is written down is the version, so that moving the tag changes nothing.
    assert rows.reference.startswith(f"{reference}?")
    assert penstock.profile("people@first", store=store).to_dict()["rows"] == 120
    with pytest.raises(StoreError, match=r"Did you mean 'first'\? .* Tags: first"):
        penstock.Dataset.open(store, reference="people@fist")
    assert main(["list", "datasets", "--store", store.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["tags"] == ["first"]
    with pytest.raises(UserError, match="names a whole version"):
        penstock.tag(rows.reference, "some", store=store)
    set_tag(store, f"people@{KEY}", "lost", Events())
    with pytest.raises(StoreError, match=r"people@lost stands for .* not in the store"):
        penstock.show("people@lost", store=store)
    penstock.untag("people@lost", store=store)
    penstock.untag("people@first", store=store)


def test_the_command_sets_lists_and_removes(
    journey: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    reference = journey["dataset"].reference

    def say(*words: str) -> str:
        main(["tag", *words, "--store", journey["store"].url])
        printed = capsys.readouterr()
        return printed.out + printed.err

    assert say("people", "v1") == f"people@v1 is {reference}\n"
    assert "stands for" in say() and "people@v1" in say("people")
    assert "write `penstock tag NAME@TAG --remove`" in say("people", "v1", "--remove")
    assert "to list tags" in say("people@v1")
    assert say("people@v1", "--remove").startswith("people@v1 is removed; it stood for")
    assert "No tags in" in say()


def test_the_lineage_goes_both_ways(journey: dict[str, Any]) -> None:
    store, dataset = journey["store"], journey["dataset"]
    found = penstock.lineage(dataset.reference[:-3], store=store)
    [source] = found.made_of
    assert (source.kind, source.reference) == ("source", str(journey["folder"]))
    assert source.facts["files"] == 2 and len(source.facts["first"]) == 2
    kinds = {"feed": [journey["feed"].id], "bundle": [f"bundle-{KEY}"]}
    for kind, references in kinds.items():
        assert found.references(kind) == references
    # A run whose feed is gone hangs from what it was trained on: a subset, and earlier weights.
    assert found.references("run") == [journey["run"].id, journey["other"].id]
    assert found.references("subset") == [journey["other"].dataset]
    back = penstock.lineage(journey["other"].id, store=store)
    assert back.references("dataset") == [dataset.reference]
    assert journey["run"].id in back.references("run")
    from_file = penstock.lineage(str(journey["folder"] / "part-0.csv"), store=store)
    assert from_file.led_to[0].reference == dataset.reference
    assert from_file.references("report") == ["fedcba9876543210"]
    with pytest.raises(UserError, match="There is nothing called 'nobody'"):
        penstock.lineage("nobody", store=store)


def test_what_was_removed_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.draft(f"bundles/{KEY}", manifest={"run": "run-gone"}):
        pass
    # As other commands take it: with what it is before the id, or without.
    found = penstock.lineage(KEY[:6], store=store)
    assert penstock.lineage(f"bundle-{KEY[:6]}", store=store) == found
    assert found.made_of[0].to_dict("made_of") == {
        "kind": "run",
        "reference": "run-gone",
        "missing": True,
        "made_of": [],
    }
    assert "run-gone (no longer in the store)" in lineage_screen(found.to_dict())


@pytest.mark.parametrize("columns", [60, 120])
def test_the_trees_fit_the_screen(
    journey: dict[str, Any], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "penstock.terminal.lineage_screen.screen_width", lambda most: columns
    )
    facts = penstock.lineage(journey["dataset"].reference, store=journey["store"])
    screen = lineage_screen(facts.to_dict())
    # A word is never torn: only one that is longer than a line may leave it.
    assert all(
        len(line) <= columns or " " not in line.strip("└─├│ ")
        for line in screen.splitlines()
    )
    assert f"bundle-{KEY}" in screen and "Made of" in screen and "Led to" in screen
    assert json.loads(json.dumps(facts.to_dict())) == facts.to_dict()


def test_errors_are_those_of_penstock(tmp_path: Path) -> None:
    for verb in (penstock.lineage, penstock.untag):
        with pytest.raises(PenstockError):
            verb("people@x", store=tmp_path)
