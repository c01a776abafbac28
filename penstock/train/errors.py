"""What goes wrong in training, made plain: an error in the user's own code as its line, memory that is out as
what to try, a vanished peer as somebody else's end, a batch that is not finite as the rows to look at.

The whole traceback goes to the run's diary (`traceback`); on the screen it would hide the line that matters,
once for each process. Only code of the user's is told as theirs: where none is on the way, the error stays as
it is, a defect of ours.
"""

from __future__ import annotations

import importlib.util
import linecache
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from penstock.contracts.learn import World
from penstock.core.errors import PenstockError, RankLost, TrainingError
from penstock.recipe.schema import Recipe

_OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "CUDA out of memory",
    "Cannot allocate memory",
    "std::bad_alloc",
)
_PARTED = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "NCCL",
    "gloo",
)
"""How torch's collectives say that a peer has gone."""


@contextmanager
def explaining_errors(recipe: Recipe, world: World, batch_size: int) -> Iterator[None]:
    """Within this, errors are told as `explain` does."""
    try:
        yield
    except Exception as error:
        explained = explain(error, recipe, world, batch_size)
        if explained is error:
            raise
        raise explained from None


def explain(
    error: BaseException, recipe: Recipe, world: World, batch_size: int | None
) -> BaseException:
    """What to raise instead of this error: a sentence of ours, with the whole traceback kept in its
    `traceback`; or itself.
    """
    # Ours are plain already; KeyboardInterrupt and SystemExit are no failures of
    # training.
    if isinstance(error, PenstockError) or not isinstance(error, Exception):
        return error
    where = f" in training process {world.rank}" if world.size > 1 else ""
    whole = "".join(traceback.format_exception(error)).strip()
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(word in str(error) for word in _OUT_OF_MEMORY)
    ):
        return _with(
            TrainingError(_out_of_memory(error, recipe, world, batch_size)), whole
        )
    # Of the user's own code, the outermost first.
    frames = _own_frames(error.__traceback__, recipe)
    in_collective = any(
        "torch/distributed" in frame.filename
        for frame in traceback.extract_tb(error.__traceback__)
    )
    # Only words of a broken line, and only from a collective: a wrong shape there is a
    # fault of the code itself.
    if (
        world.size > 1
        and in_collective
        and isinstance(error, (RuntimeError, OSError))
        and any(word in str(error) for word in _PARTED)
    ):
        return _with(RankLost(f"training process {world.rank} lost its peers."), whole)
    if not frames:
        return error
    # The innermost of the user's own: what it has called is not theirs to mend.
    frame = frames[-1]
    line = (linecache.getline(frame.filename, frame.lineno or 0) or "").strip()
    sentence = str(error).strip() or "(no message)"
    text = (
        f"{frame.filename}:{frame.lineno}, in {frame.name}{where}:\n    {line}\n{type(error).__name__}:"
        f" {sentence}\nThe whole traceback is in the run's diary."
    )
    return _with(TrainingError(text), whole)


def _with(error: PenstockError, whole: str) -> PenstockError:
    error.traceback = whole  # type: ignore[attr-defined]
    return error


def _own_frames(
    trace: TracebackType | None, recipe: Recipe
) -> Sequence[traceback.FrameSummary]:
    """The frames of the user's code: neither ours, nor Python's, nor an installed package's but the model's
    own.
    """
    paths = sysconfig.get_paths()
    others = [
        str(Path(__file__).resolve().parents[1]),
        *{
            str(Path(paths[word]).resolve())
            for word in ("stdlib", "platstdlib", "purelib", "platlib")
        },
    ]
    theirs = _home_of(recipe)
    frames = []
    for frame in traceback.extract_tb(trace):
        # `<string>` and the like are no files.
        path = (
            str(Path(frame.filename).resolve())
            if not frame.filename.startswith("<")
            else ""
        )
        # A model's own package is the user's code even where it is installed among the
        # others.
        if path and (
            (theirs and path.startswith(theirs)) or not path.startswith(tuple(others))
        ):
            frames.append(frame)
    return frames


def _home_of(recipe: Recipe) -> str | None:
    """Where the package of a model of the user's lies, which may be an installed one."""
    module, colon, _ = str(getattr(recipe.model, "type", "")).partition(":")
    if not colon:
        return None
    try:
        spec = importlib.util.find_spec(module.split(".")[0])
    except (ImportError, ValueError):
        # `find_spec` raises ValueError for a module without a spec, such as `__main__`.
        return None
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin).resolve()
    # A package is its folder; a module that stands alone is its file and nothing
    # beside.
    return str(origin.parent if origin.name == "__init__.py" else origin)


def _out_of_memory(
    error: Exception, recipe: Recipe, world: World, batch_size: int | None
) -> str:
    train = recipe.train
    where = (
        f"training process {world.rank} of {world.size}" if world.size > 1 else "training"
    )
    share = f"batches of {batch_size} rows" if batch_size else "its batches"
    if batch_size and world.size > 1:
        share += f" over {world.size} processes"
    if train.accumulate > 1:
        share += f" in {train.accumulate} pieces"
    tries = [
        f"train.accumulate: {2 * train.accumulate} (the same result, with pieces half as large)"
    ]
    if batch_size and batch_size > 1:
        tries.append(f"train.batch_size: {max(batch_size // 2, 1)}")
    if train.precision == "fp32":
        tries.append("train.precision: bf16")
    if not recipe.parallel.activation_checkpointing:
        tries.append(
            "parallel.activation_checkpointing: true (a third more work for less memory)"
        )
    if world.size > 1 and (smaller := recipe.parallel.strategy.saves_memory()):
        tries.append(smaller)
    if train.checkpoint.background:
        tries.append("train.checkpoint.background: false (no second copy of the weights)")
    # Allocators add pages of statistics after the first line.
    text = (str(error).strip().splitlines() or ["MemoryError"])[0][:200]
    return (
        f"{where} ran out of memory with {share}: {text or 'MemoryError'}\nTry one of: {'; '.join(tries)}; or"
        " a smaller model."
    )


__all__ = ["explain", "explaining_errors"]
