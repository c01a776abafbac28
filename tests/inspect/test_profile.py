"""`profile`: planted faults found, counts of all rows, private values left out, what `init` says as well."""

import json
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import penstock
from penstock.cli import main
from penstock.inspect.profile.compare import compare, drift, psi
from penstock.inspect.profile.distinct import Distinct, number_hashes, text_hashes
from penstock.inspect.profile.numbers import BINS, Scale
from penstock.inspect.profile.rows import Rows
from penstock.inspect.profile.shapes import equal_pictures
from penstock.inspect.profile.suspicions import masked, suspicions
from penstock.inspect.profile.variants import variants
from penstock.pages import profile_page

ROWS = 30_000
PERSON = "ada.lovelace@example.org"
CARD = "4111 1111 1111 1111"


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A file with a fault of each kind, more rows than are looked at, and its profile."""
    rng = np.random.default_rng(7)
    number = rng.normal(50, 5, ROWS).round(3)
    number[:7] = 1e6
    city = rng.choice(["Lisbon", "Oslo", "Prague"], ROWS, p=[0.5, 0.3, 0.2]).astype(
        object
    )
    city[10:15] = "?"
    city[20] = "Lisbxn"
    note = np.array([f"a note about item {i} and more" for i in range(ROWS)], object)
    note[100] = f"write to {PERSON} soon"
    note[101] = f"paid by {CARD} twice"
    note[102] = "from 192.168.10.20 again"
    note[103] = "caf\u00c3\u00a9 cr\u00c3\u00a8me of the house"
    note[104] = "a \u200b zero width space in here"
    frame = pd.DataFrame(
        {
            "number": number,
            "city": city,
            "same": 3,
            "note": note,
            "mail": [f"user{i}@example.com" for i in range(ROWS)],
            "label": rng.choice(["yes", "no"], ROWS),
        }
    )
    frame["copy"] = frame["label"].map({"yes": "A", "no": "B"})
    frame = pd.concat([frame, frame.iloc[:11]])
    path = tmp_path_factory.mktemp("profile") / "planted.parquet"
    frame.to_parquet(path, index=False)
    return path, penstock.profile(str(path), target="label")


def kinds(profile, column=""):
    return {f["kind"]: f for f in profile.findings if f["column"] == column}


def test_planted_faults_are_found_with_their_counts(planted):
    _, profile = planted
    assert kinds(profile)["duplicates"]["evidence"]["rows"] == 11
    assert kinds(profile, "number")["outliers"]["evidence"]["high"] == 7 + 7
    assert kinds(profile, "city")["markers"]["evidence"]["values"] == {"?": 5 + 1}
    assert kinds(profile, "city")["variants"]["evidence"]["pairs"] == [
        ['"Lisbxn"', '"Lisbon"', 1]
    ]
    assert "constant" in kinds(profile, "same")
    assert kinds(profile, "copy")["leak"]["severity"] == "error"
    assert kinds(profile, "mail")["personal"]["severity"] == "error"
    found = kinds(profile, "note")
    assert found["mojibake"]["evidence"]["rows"] == 1
    assert found["invisible"]["evidence"]["rows"] == 1
    personal = {
        f["evidence"].get("what") for f in profile.findings if f["column"] == "note"
    }
    assert {"e-mail addresses", "numbers of payment cards", "IP addresses"} <= personal


def test_counts_are_of_all_rows(planted):
    path, profile = planted
    frame = pd.read_parquet(path)
    columns = {c["name"]: c for c in profile.to_dict()["columns"]}
    assert profile.to_dict()["rows"] == len(frame) == ROWS + 11
    number = columns["number"]
    assert number["min"] == frame.number.min()
    assert number["max"] == frame.number.max()
    assert number["mean"] == pytest.approx(frame.number.mean(), rel=1e-9)
    assert number["std"] == pytest.approx(frame.number.std(ddof=0), rel=1e-6)
    histogram = number["histogram"]
    assert sum(histogram["rows"]) + histogram["below"] + histogram["above"] == len(frame)
    expected, _ = np.histogram(frame.number, histogram["edges"])
    assert np.abs(expected - histogram["rows"]).max() <= 1
    city = frame.city.value_counts()
    assert dict(map(tuple, columns["city"]["top"])) == {
        k: n for k, n in city.items() if n > 1
    }
    assert columns["city"]["distinct"] == frame.city.nunique()
    lengths = frame.note.str.len()
    assert columns["note"]["length"]["max"] == lengths.max()
    assert columns["note"]["length"]["min"] == lengths.min()


def test_worst_comes_first_and_each_is_a_record(planted):
    _, profile = planted
    order = ["error", "warning", "note"]
    severities = [order.index(f["severity"]) for f in profile.findings]
    assert severities == sorted(severities)
    for finding in profile.findings:
        assert set(finding) == {
            "severity",
            "kind",
            "column",
            "sentence",
            "evidence",
            "recipe",
        }
        assert finding["sentence"]
    json.dumps(profile.to_dict(), allow_nan=False)


def test_no_private_value_is_shown(planted):
    _, profile = planted
    facts = json.dumps(profile.to_dict()) + profile_page(profile.to_dict())
    for value in (PERSON, CARD, "192.168.10.20", "user1@", "user7@", "@example"):
        assert value not in facts
    mail = next(c for c in profile.to_dict()["columns"] if c["name"] == "mail")
    assert mail["private"] and mail["top"] == [] and "min" not in mail


def test_init_and_profile_say_the_same(planted):
    path, profile = planted
    draft = penstock.init(str(path), target="label").to_dict()
    left_out = {entry["column"]: entry["why"] for entry in draft["left_out"]}
    said = {(f["column"], f["sentence"]) for f in profile.findings}
    assert left_out
    for column, why in left_out.items():
        assert (column, why) in said
    features = {c["name"]: c["feature"] for c in profile.to_dict()["columns"]}
    for entry in [*draft["inputs"], draft["target"]]:
        assert features[entry["column"]] == entry["type"]
    assert set(left_out) == {
        name for name, feature in features.items() if feature is None
    }


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_stands_alone_and_escapes_values(tmp_path):
    hostile = "<script>alert(1)</script>"
    frame = pd.DataFrame(
        {
            "x<b>": [hostile, "b", hostile, "c"] * 20,
            "n": range(80),
            'q"': ["a\u202eb", "d"] * 40,
        }
    )
    target = tmp_path / "report.html"
    penstock.profile(frame, html=target)
    text = target.read_text("utf-8")
    page = _Page()
    page.feed(text)
    names = {tag for tag, _ in page.tags}
    assert "script" not in names and {"svg", "style", "main"} <= names
    assert "\u202e" not in text
    for _, attributes in page.tags:
        assert not any(word.startswith("on") for word in attributes)
        for word in ("src", "href"):
            assert attributes.get(word, "#").startswith("#")
    assert "prefers-color-scheme:dark" in text and "max-width:480px" in text


def test_the_command_prints_a_table_and_json(planted, tmp_path, capsys):
    path, _ = planted
    page, saved = tmp_path / "r.html", tmp_path / "p.json"
    words = [
        "profile",
        str(path),
        "--target",
        "label",
        "--html",
        str(page),
        "-o",
        str(saved),
    ]
    assert main(words) == 0
    screen = capsys.readouterr().out
    assert screen.index("✗ copy") < screen.index("! city") < screen.index("distinct")
    assert "clean: [deduplicate]" in screen
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert main(["profile", str(path), "--target", "label", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == json.loads(saved.read_text("utf-8"))
    assert facts["target"] == "label"


def test_a_recipe_and_its_dataset_have_profiles(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "key": np.arange(2_000),
            "x": rng.normal(size=2_000),
            "y": rng.integers(0, 2, 2_000),
        }
    )
    frame.to_parquet("rows.parquet")
    recipe = {
        "name": "two",
        "source": {"type": "files", "path": "rows.parquet"},
        "inputs": {"x": "number"},
        "targets": {"y": "binary"},
    }
    (tmp_path / "r.json").write_text(json.dumps(recipe))
    of_recipe = penstock.profile("r.json").to_dict()
    assert of_recipe["rows"] == 2_000 and of_recipe["target"] == "y"
    dataset = penstock.prepare("r.json")
    of_dataset = penstock.profile(dataset).to_dict()
    assert of_dataset["splits"] == {
        s: dataset.counts[s] for s in ("train", "validation", "test")
    }
    assert of_dataset == penstock.profile(dataset.reference).to_dict()
    frame.loc[:99, "x"] += 50
    frame.iloc[100:].to_parquet("rows.parquet")
    later = penstock.prepare("r.json")
    assert (
        main(["diff", dataset.reference, later.reference, "--key", "key", "--json"]) == 0
    )
    keyed = json.loads(capsys.readouterr().out)["keyed"]
    assert (keyed["added"], keyed["removed"], keyed["changed"], keyed["same"]) == (
        0,
        100,
        0,
        1_900,
    )
    frame.to_parquet("rows.parquet")
    moved = penstock.prepare("r.json")
    keyed = penstock.diff(dataset, moved, key=["key"])["keyed"]
    assert (keyed["changed"], keyed["changed_columns"]) == (100, {"x": 100})
    assert main(["diff", dataset.reference, moved.reference, "--key", "nokey"]) == 2
    assert "nokey" in capsys.readouterr().err


def test_a_diff_names_what_moved(tmp_path, capsys):
    rng = np.random.default_rng(3)
    before = pd.DataFrame(
        {"a": rng.normal(0, 1, 3_000), "b": rng.choice(["x", "y"], 3_000), "old": 1.5}
    )
    after = pd.DataFrame(
        {"a": rng.normal(3, 1, 3_000), "b": rng.choice(["x", "y", "z"], 3_000), "new": 1}
    )
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for path, frame in zip(paths, (before, after), strict=True):
        frame.to_parquet(path)
    facts = penstock.diff(str(paths[0]), str(paths[1]))
    assert facts["columns"]["added"] == ["new"] and facts["columns"]["removed"] == ["old"]
    moved = {each["column"]: each for each in facts["changed"]}
    assert facts["changed"][0]["column"] == "a" and moved["a"]["drift"] > 1
    assert moved["b"]["new_values"] == ["z"]
    same = penstock.diff(str(paths[0]), str(paths[0]))
    assert same["changed"] == [] and same["findings"] == {"new": [], "gone": []}
    assert main(["diff", str(paths[0]), str(paths[1])]) == 0
    assert "columns added: new" in capsys.readouterr().out


@pytest.mark.parametrize("count", [10, 60_000, 400_000])
def test_distinct_values_are_counted(count):
    rng = np.random.default_rng(count)
    counter = Distinct()
    halves = Distinct()
    values = np.arange(count, dtype=float) * 1.37
    for part in np.array_split(rng.permutation(np.tile(values, 2)), 7):
        counter.add(number_hashes(part))
        other = Distinct()
        other.add(number_hashes(part))
        halves.merge(other)
    assert (
        counter.count()
        == halves.count()
        == pytest.approx(count, rel=0 if count < 65_000 else 0.03)
    )
    assert counter.is_exact == (count < 65_536)


def test_text_hashes_do_not_depend_on_the_batch():
    words = pa.array(["a", "b", "ü", ""])
    assert (text_hashes(words)[1:] == text_hashes(words.slice(1))).all()


def test_equal_rows_are_counted_within_and_across_splits():
    rows = Rows()
    rows.add("train", pa.record_batch({"x": [1, 1, 2, 3], "t": ["a", "a", "b", None]}))
    rows.add("test", pa.record_batch({"x": [3, 9], "t": [None, "z"]}))
    assert rows.result() == {
        "exact": True,
        "duplicates": {"train": 1, "test": 0},
        "overlap": {"test": 1},
    }
    many = Rows(most=2_000)
    many.add("train", pa.record_batch({"x": np.tile(np.arange(20_000), 2)}))
    facts = many.result()
    assert not facts["exact"] and facts["duplicates"]["train"] == pytest.approx(
        20_000, rel=0.1
    )


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ring +49 30 1234567 today", "telephone numbers"),
        ("DE89 3704 0044 0532 0130 00", "bank accounts (IBAN)"),
        ("his number is 078-05-1120.", "numbers of social security"),
        ("4111-1111-1111-1111", "numbers of payment cards"),
        ("host 10.0.0.1:80 is down", "IP addresses"),
        ("<br/>line", "markup"),
        ("a\x07b", "control"),
        ("\ufeffkey", "invisible"),
        ("Ã¼ber", "mojibake"),
    ],
)
def test_a_suspicion(text, kind):
    found = suspicions(pa.array(["plain words", text]))
    assert found[kind].tolist() == [False, True]


@pytest.mark.parametrize(
    "text",
    [
        "4111-1111-1111-1112",
        "version 1.2.3",
        "2024-01-31",
        "DE89 3704 0044 0532 0130 02",
        "über café",
    ],
)
def test_what_is_no_suspicion(text):
    assert set(suspicions(pa.array([text]))) <= {"number"}


def test_masking_takes_what_reaches_a_person():
    assert PERSON not in masked(f"to {PERSON}.") and "4111" not in masked(f"by {CARD}!")


def test_variants_are_slips_not_siblings():
    assert variants({"Shirts": 200, "Skirts": 15}) == []
    assert variants({"heart attack": 200, "heart attaxk": 1}) == [
        ("heart attaxk", "heart attack", 1)
    ]
    assert variants({"WS10": 90, "WA10": 1}) == []
    assert variants({"New York": 9, "new york": 4}) == [("new york", "New York", 4)]


def test_psi_is_zero_for_equal_shares_and_known_else():
    assert psi([10, 20], [20, 40]) == 0
    assert psi([50, 50], [90, 10]) == pytest.approx(
        0.4 * np.log(0.9 / 0.5) - 0.4 * np.log(0.1 / 0.5)
    )


def test_profiles_of_other_bins_are_compared():
    rng = np.random.default_rng(5)

    def side(values):
        rows, edges = np.histogram(values, 24)
        histogram = {
            "edges": edges.tolist(),
            "rows": rows.tolist(),
            "below": 0,
            "above": 0,
        }
        column = {
            "name": "x",
            "type": "double",
            "rows": len(values),
            "missing": 0,
            "histogram": histogram,
        }
        return {"source": "s", "rows": len(values), "columns": [column], "findings": []}

    base = side(rng.normal(0, 1, 20_000))
    alike = compare(base, side(rng.normal(0, 1, 20_000)))["changed"][0]["drift"]
    other = compare(base, side(rng.normal(1, 1, 20_000)))["changed"][0]["drift"]
    assert alike < 0.02 < 0.5 < other


def test_gaps_and_steps_are_seen_file_by_file(tmp_path):
    for name, step, hole in (("a", "5min", 100), ("b", "1h", None)):
        times = pd.Series(pd.date_range("2024-01-01", periods=400, freq=step))
        if hole:
            times = times.drop(range(hole, hole + 10))
        pd.DataFrame({"at": times, "v": np.arange(len(times)) % 7}).to_csv(
            tmp_path / f"{name}.csv", index=False
        )
    profile = penstock.profile(str(tmp_path), target="v")
    at = next(c for c in profile.to_dict()["columns"] if c["name"] == "at")
    assert (
        at["order"]["gaps"] == 1 and at["order"]["sorted"] and at["order"]["files"] == 2
    )
    assert kinds(profile, "at")["gaps"]["evidence"]["longest_seconds"] == 55 * 60


def test_the_word_of_another_name_is_no_slip():
    counts = {"al_hf-1": 40, "ak_pn-2": 9, "ak_pn-3": 8, "ak_hf-1": 1}
    assert variants(counts) == []
    cities = {"Portland": 40, "Columbus": 12, "Corning": 9, "Forest": 8, "Cortland": 1}
    assert variants(cities) == []


def test_check_digits_that_are_right_by_chance_are_no_cards():
    rng = np.random.default_rng(3)
    numbers = [str(n) for n in rng.integers(4 * 10**15, 5 * 10**15, 3_000)]
    assert "numbers of payment cards" not in suspicions(pa.array(numbers))
    assert suspicions(pa.array(["0 0 4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"])) == {}
    ibans = [f"AB{i:02d} 1234 5678 {i:04d}" for i in range(97)]
    assert "bank accounts (IBAN)" not in suspicions(pa.array(ibans))


def test_things_of_one_shape_are_no_copies():
    rng = np.random.default_rng(1)
    look = 0xF0F0_F0F0_F0F0_F0F0
    greys = [rng.integers(0, 255, 64).astype(np.uint8).tobytes() for _ in range(3)]
    again = bytes(min(g + 1, 255) for g in greys[0])
    assert equal_pictures([1, 2, 3, 4], [look] * 4, [*greys, again]) == (0, 1)
    assert equal_pictures([1, 1], [look] * 2, greys[:2]) == (1, 0)


def test_a_long_tail_is_no_drift():
    rng = np.random.default_rng(2)

    def side(rows):
        texts, counts = np.unique(rng.zipf(1.6, rows) % 500, return_counts=True)
        ranked = sorted(
            zip(map(str, texts), counts.tolist(), strict=True), key=lambda p: -p[1]
        )
        top = [list(pair) for pair in ranked[:20]]
        return {"top": top, "rows": rows, "missing": 0, "distinct": len(texts)}

    assert drift(side(40_000), side(5_000)) < 0.02


def test_columns_that_a_recipe_declares_private_show_no_value(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET_KEY", "k" * 40)
    rng = np.random.default_rng(4)
    nick = rng.choice([f"quokka{i}" for i in range(9)], 600).astype(object)
    nick[5] = "quokkb1"
    pay = rng.normal(71_234, 9, 600).round(3)
    pay[7] = 918_273.5
    label = rng.choice(["yes", "no"], 600)
    frame = pd.DataFrame(
        {"nick": nick, "pay": pay, "x": rng.normal(size=600), "y": label}
    )
    frame.to_parquet("rows.parquet")
    recipe = {
        "name": "hidden",
        "source": {"type": "files", "path": "rows.parquet"},
        "private": {"nick": "drop", "pay": "drop"},
        "inputs": {"x": "number"},
        "targets": {"y": "binary"},
    }
    (tmp_path / "r.json").write_text(json.dumps(recipe))
    facts = penstock.profile("r.json").to_dict()
    text = json.dumps(facts) + profile_page(facts)
    for secret in ("quokka", "quokkb", "918273", "918,273", "71234", "71,234", "71,2"):
        assert secret not in text


def test_a_head_of_other_classes_is_told():
    rng = np.random.default_rng(5)
    classes = np.r_[np.full(200, "a"), rng.choice(list("abc"), 1_800)]
    frame = pd.DataFrame({"x": rng.normal(size=2_000), "y": classes})
    assert "row order" in kinds(penstock.profile(frame, target="y"), "y")
    mixed = frame.sample(frac=1, random_state=1)
    assert "row order" not in kinds(penstock.profile(mixed, target="y"), "y")


def test_bins_of_whole_numbers_have_whole_edges() -> None:
    for high in (1, 7, 24, 100, 1_000):
        scale = Scale.of(np.arange(high + 1, dtype=float))
        assert scale is not None and len(scale.edges) <= BINS + 1
        assert (scale.edges == np.floor(scale.edges)).all()
        # Each bin but the last has equally many whole numbers, and none is outside.
        assert scale.edges[0] == 0 and scale.edges[-1] > high
