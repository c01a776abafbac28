"""What is slow: where the seconds of training went, in numbers and in a word.

The consumer is either in the model or waiting for a batch, so these two are the loop's seconds. `read`,
`decode` and `copy` are the threads' that read ahead, beside it; only while the consumer waits do they cost
anything. What is slow is therefore the model, unless the wait says otherwise, and then whatever the threads
spent most on.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.loader.prefetch import Timings

_NOTABLE = 0.1
"""Waiting for less than this share of the time is no matter."""
_WORDS = {
    "read": "reading rows",
    "decode": "decoding them",
    "copy": "copying them to the device",
}


class StageTimer:
    """A loader's timings beside the loop's seconds.

    Args:
        timings: the loader's.
        before: seconds by stage of earlier processes of the same run.
    """

    def __init__(self, timings: Timings, before: Mapping[str, float]) -> None:
        self._timings, self._before = timings, dict(before)
        self._waited = timings.seconds()["wait"]

    def lap(self, seconds: float) -> dict[str, float]:
        """Of the `seconds` since the last lap: the shares `model` and `waiting`, which add up to 1."""
        # The loader counts on from epoch to epoch; the difference is this lap's.
        waited = self._timings.seconds()["wait"]
        share = min(max((waited - self._waited) / max(seconds, 1e-9), 0.0), 1.0)
        self._waited = waited
        return {"model": round(1 - share, 3), "waiting": round(share, 3)}

    def stages(self, loop_seconds: float) -> dict[str, float]:
        """Seconds of `read`, `decode`, `copy`, `wait` and `model`, over all of training.

        Args:
            loop_seconds: all that was spent in the loop over batches.
        """
        seconds_by_stage = {
            stage: self._before.get(stage, 0.0) + seconds
            for stage, seconds in self._timings.seconds().items()
        }
        return {
            **{stage: round(seconds, 4) for stage, seconds in seconds_by_stage.items()},
            # Reading, decoding and copying happen beside the loop, so only the wait is
            # taken off.
            "model": round(max(loop_seconds - seconds_by_stage["wait"], 0.0), 4),
        }


def slow(stages: Mapping[str, float]) -> str:
    """What is slow, in words: `97% computing, 3% waiting for data`."""
    # A run that goes on where nothing was left to train has measured nothing.
    waited = stages.get("wait", 0.0)
    whole = waited + stages.get("model", 0.0)
    share = waited / whole if whole else 0.0
    if share < _NOTABLE:
        return f"{1 - share:.0%} computing, {share:.0%} waiting for data"
    stage = max(_WORDS, key=lambda word: stages.get(word, 0.0))
    return (
        f"{1 - share:.0%} computing, {share:.0%} waiting for data, mostly for"
        f" {_WORDS[stage]} ({stage})"
    )
