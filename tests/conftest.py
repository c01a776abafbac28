"""What several test rooms share: small real tables, one trained journey, and one torch thread."""

from __future__ import annotations

import inspect
import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long examples take is the machine's business, and no test's.
settings.register_profile(
    "steady", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")
os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # `make test &` in a script, or nohup: the children that tests start would ignore Ctrl-C, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def state_of_its_own(tmp_path_factory):
    """What the tests make is noted in no user's record."""
    before = os.environ.get("PENSTOCK_STATE")
    os.environ["PENSTOCK_STATE"] = str(tmp_path_factory.mktemp("state"))
    yield
    if before is None:
        del os.environ["PENSTOCK_STATE"]
    else:
        os.environ["PENSTOCK_STATE"] = before


SLOW_MINUTES = {
    "tests/parts/test_launchers_clusters.py": 7,
    "tests/parts/test_engine_spark.py": 5,
    "tests/journeys/test_ceiling.py": 3,
    "tests/journeys/test_shared_data.py": 3,
    "tests/journeys/test_proofs.py": 3,
    "tests/journeys/test_first_hour.py": 2,
    "tests/journeys/test_spark.py": 2,
    "tests/journeys/test_clusters.py": 2,
    "tests/prepare/test_judges.py": 1,
    "tests/prepare/test_contract_proof.py": 1,
    "tests/safety/test_interrupts.py": 1,
    "tests/safety/test_secrets_everywhere.py": 1,
    "tests/safety/test_bounds_files.py": 1,
    "tests/safety/test_bounds_data.py": 1,
    "tests/train/test_strategies.py": 1,
}
"""Files of the slow ring that take longest, with about the minutes of one core."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, where only slow tests are left: with `--dist loadfile` the last are short."""
    if items and all(item.get_closest_marker("slow") for item in items):
        items.sort(key=lambda item: -SLOW_MINUTES.get(item.nodeid.split("::")[0], 0.0))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """`inspect` remembers the file of a test's package `acme`; the next test's may have none."""
    vars(inspect)["_filesbymodname"].pop("acme", None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the project."""
    if not SHARED.is_dir():
        pytest.skip("the real data sets (../shared/data) are not on this machine")
    return SHARED


@pytest.fixture(scope="session")
def people(tmp_path_factory) -> Path:
    """A folder with a recipe and a lake of 600 made-up people in three CSV files, one line of them torn."""
    import random

    folder = tmp_path_factory.mktemp("people")
    (folder / "lake").mkdir()
    random.seed(3)
    for part in range(3):
        lines = ["id,age,city,joined,pay"]
        for i in range(200):
            age, city = (
                random.randint(18, 80),
                random.choice(["Bergen", "Oslo", "Tromsø", ""]),
            )
            score = age / 20 + (city == "Oslo") * 1.5 + random.gauss(0, 0.7)
            known_age = age if random.random() > 0.05 else ""
            day, pay = random.randint(1, 28), "high" if score > 3 else "low"
            lines.append(f"{part * 200 + i},{known_age},{city},2026-01-{day:02d},{pay}")
        if part == 1:
            lines.insert(50, "7,8")
        (folder / "lake" / f"part-{part}.csv").write_text(
            "\n".join(lines) + "\n", "utf-8"
        )
    (folder / "recipe.yaml").write_text(
        """
name: people
seed: 1
source: {type: files, path: lake}
key: id
inputs: {age: number, city: category, joined: timestamp}
targets: {pay: {type: binary, positive: high}}
keep: id
split: {train: 0.6, validation: 0.2, test: 0.2}
train: {epochs: 3, batch_size: 64}
model: {combiner: {type: mlp, width: 32, depth: 1}}
evaluate: {slices: [city], bootstrap: 50}
launcher: {type: local, processes: 1, threads: 1}
""",
        "utf-8",
    )
    return folder
