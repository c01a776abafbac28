from __future__ import annotations

from penstock.loader.prefetch import Timings
from penstock.train.timing import StageTimer, slow


def test_shares_of_a_lap_and_seconds_of_all() -> None:
    timings = Timings()
    timings.add(wait=3.0)
    pace = StageTimer(timings, {"read": 1.0, "wait": 2.0})
    timings.add(wait=1.0, read=0.5, decode=4.0)
    assert pace.lap(4.0) == {"model": 0.75, "waiting": 0.25}
    assert (
        pace.lap(4.0) == {"model": 1.0, "waiting": 0.0} and pace.lap(0.0)["model"] == 1.0
    )
    assert pace.stages(10.0) == {
        "read": 1.5,
        "decode": 4.0,
        "copy": 0.0,
        "wait": 6.0,
        "model": 4.0,
    }
    assert pace.stages(1.0)["model"] == 0.0


def test_what_is_slow_in_words() -> None:
    stages = {"read": 1.0, "decode": 8.0, "copy": 0.0, "wait": 0.3, "model": 9.7}
    assert slow(stages) == "97% computing, 3% waiting for data"
    assert (
        slow({**stages, "wait": 10.0, "model": 10.0})
        == "50% computing, 50% waiting for data, mostly for decoding them (decode)"
    )
    assert slow({**stages, "wait": 10.0, "read": 9.0}).endswith(
        "mostly for reading rows (read)"
    ) and slow(dict.fromkeys(stages, 0.0)).endswith("waiting for data")
