"""A checkpoint whose optimiser, average or exchange is damaged or another training's ends in a sentence,
though its checksums are right.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from penstock.core.errors import PenstockError
from penstock.core.identity import sha256_file
from penstock.core.store import MANIFEST, Store
from penstock.nn.weights import read_tensors
from penstock.run import Run
from penstock.train.checkpoint import Checkpoints, write_tensors
from penstock.train.foreign_state import _odd_exchanges
from penstock.train.supervisor import train
from tests.train.tiny import TWO, Heard, tiny_feed, tiny_recipe, tiny_run

Tensors = dict[str, Tensor]


def _first(tensors: Tensors, word: str = "") -> str:
    return next(
        name
        for name in sorted(tensors)
        if name.endswith(word) and tensors[name].numel() > 1
    )


def _smaller(tensors: Tensors) -> None:
    name = _first(tensors)
    tensors[name] = tensors[name].reshape(-1)[:1].clone()


def _turned(tensors: Tensors) -> None:
    name = next(name for name in sorted(tensors) if tensors[name].ndim == 2)
    tensors[name] = tensors[name].T.contiguous()


def _renamed(tensors: Tensors) -> None:
    name = _first(tensors)
    tensors[f"{name}_more"] = tensors.pop(name)


def _another_optimiser(tensors: Tensors) -> None:
    for name in sorted(tensors):
        place = name.rpartition("/")[0]
        tensors.pop(name)
        tensors[f"{place}/square_avg"] = torch.zeros(3)


def _without_a_part(tensors: Tensors) -> None:
    del tensors[_first(tensors)]


def _another_phase(tensors: Tensors) -> None:
    tensors["generator/a/b"] = torch.zeros(1)


def _of_no_place(tensors: Tensors) -> None:
    tensors["x"] = torch.zeros(1)


def _complex(tensors: Tensors) -> None:
    name = _first(tensors)
    tensors[name] = tensors[name].to(torch.complex64)


def _reseal(folder: Path, file: str, tensors: Tensors | None) -> None:
    """Write another file of tensors, with the checksums that it then has."""
    path, manifest = folder / file, json.loads((folder / MANIFEST).read_text())
    path.unlink()
    del manifest["files"][file]
    if tensors is not None:
        write_tensors(path, tensors)
        manifest["files"][file] = {
            "size_bytes": path.stat().st_size,
            "sha256": sha256_file(path),
        }
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture
def stopped(tmp_path: Path) -> Callable[..., tuple[Callable[[], None], Path]]:
    """A run that has learnt for two epochs and has a third to go: what goes on, and its newest checkpoint."""

    def make(**words: object) -> tuple[Callable[[], None], Path]:
        recipe, longer = (
            tiny_recipe(tmp_path, epochs=epochs, **words) for epochs in (2, 3)
        )
        store = Store(tmp_path / "store")
        feed = tiny_feed(store, recipe)
        run: Run = tiny_run(store, recipe, feed)
        train(recipe, feed, run, Heard().events)
        newest = sorted(run.checkpoints.glob("step-*"))[-1]
        state = json.loads((newest / "state.json").read_text())
        state["place"]["ended"] = None
        (newest / "state.json").write_text(json.dumps(state))
        manifest = json.loads((newest / MANIFEST).read_text())
        whole = newest / "state.json"
        manifest["files"]["state.json"] = {
            "size_bytes": whole.stat().st_size,
            "sha256": sha256_file(whole),
        }
        (newest / MANIFEST).write_text(json.dumps(manifest))
        return lambda: train(longer, feed, run, Heard().events, resume=True), newest

    return make


DAMAGES = [
    _smaller,
    _turned,
    _renamed,
    _another_optimiser,
    _another_phase,
    _of_no_place,
    _complex,
]


@pytest.mark.parametrize(
    "damage", [*DAMAGES, _without_a_part], ids=lambda damage: damage.__name__
)
def test_an_optimiser_of_another_training_is_refused(
    stopped, damage: Callable[[Tensors], None]
) -> None:
    go_on, newest = stopped()
    tensors = read_tensors(newest / "optimiser.safetensors")
    damage(tensors)
    _reseal(newest, "optimiser.safetensors", tensors)
    with pytest.raises(
        PenstockError, match=r"optimiser\.safetensors belongs to another training"
    ) as told:
        go_on()
    assert "Delete the checkpoint" in told.value.message


@pytest.mark.parametrize(
    "damage", [_smaller, _renamed], ids=lambda damage: damage.__name__
)
def test_momentum_of_another_training_is_refused(
    stopped, damage: Callable[[Tensors], None]
) -> None:
    go_on, newest = stopped(optimiser="sgd", lr=0.05)
    tensors = read_tensors(newest / "optimiser.safetensors")
    damage(tensors)
    _reseal(newest, "optimiser.safetensors", tensors)
    with pytest.raises(
        PenstockError, match=r"optimiser\.safetensors belongs to another training"
    ):
        go_on()


@pytest.mark.parametrize(
    "damage", [_smaller, _renamed, _without_a_part], ids=lambda d: d.__name__
)
def test_an_average_of_another_model_is_refused(
    stopped, damage: Callable[[Tensors], None]
) -> None:
    go_on, newest = stopped(ema=0.9)
    tensors = read_tensors(newest / "average.safetensors")
    damage(tensors)
    _reseal(newest, "average.safetensors", tensors)
    with pytest.raises(
        PenstockError, match=r"average\.safetensors belongs to another training"
    ):
        go_on()


def test_a_checkpoint_without_its_optimiser_is_refused(stopped) -> None:
    go_on, newest = stopped()
    _reseal(newest, "optimiser.safetensors", None)
    with pytest.raises(PenstockError, match=r"lacks optimiser\.safetensors"):
        go_on()


@pytest.mark.parametrize(
    "words", [{}, {"optimiser": "sgd", "lr": 0.05}, {"ema": 0.9}], ids=str
)
def test_its_own_is_taken_up(stopped, words: dict[str, object]) -> None:
    go_on, _ = stopped(**words)
    go_on()


# -- what ranks and exchanges remember ----------------------------------------------------------------------


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _of_another_run(path: Path) -> None:
    write_tensors(path, {"1/main/other.weight/exp_avg": torch.ones(3, 2)})


def _of_no_rank(tensors: Tensors) -> None:
    name = next(iter(tensors))
    tensors[f"x/{name}"] = tensors.pop(name)


def _of_other_shape(tensors: Tensors) -> None:
    for name in tensors:
        tensors[name] = torch.zeros(7, 7, 7)


@pytest.mark.slow
def test_damage_to_what_ranks_and_exchanges_remember_is_named(stopped) -> None:
    """Of a file changed in any way the checkpoint before is used, with a word; of one resealed with another
    training's tensors the file is named.
    """
    go_on, newest = stopped(
        parallel={
            "strategy": {"type": "local_sgd", "every": 2, "outer": {"type": "nesterov"}},
        }
    )
    moments = read_tensors(newest / "optimiser.safetensors")
    # As two more workers would have left them.
    ranks = {
        f"{rank}/{name}": t.clone() for rank in (1, 2) for name, t in moments.items()
    }
    _reseal_more(newest, "ranks.safetensors", ranks)
    # What nobody asks for is left: one process exchanges nothing.
    _reseal_more(newest, "exchange.safetensors", {"main/0/w": torch.ones(3)})
    checkpoints = Checkpoints(newest.parent, keep=3)
    whole = {path.name: path.read_bytes() for path in newest.iterdir()}
    files = ["ranks.safetensors", "outer.safetensors", "exchange.safetensors"]
    assert set(files) <= set(whole), sorted(whole)
    assert checkpoints.newest(Heard().events) == newest
    for file in files:
        for damage in (Path.unlink, _cut, _flipped, _of_another_run):
            damage(newest / file)
            heard = Heard()
            assert checkpoints.newest(heard.events) == checkpoints.all()[-2]
            text = str(heard.all)
            assert newest.name in text and file in text, (file, damage, text)
            (newest / file).write_bytes(whole[file])
    for file in files[:2]:
        tensors = read_tensors(newest / file)
        for change in (_of_other_shape, _of_no_rank):
            changed = dict(tensors)
            change(changed)
            _reseal(newest, file, changed)
            with pytest.raises(
                PenstockError, match=f"{file}.*belongs to another training"
            ):
                go_on()
            for name, data in whole.items():
                (newest / name).write_bytes(data)
    go_on()


@pytest.mark.parametrize(
    ("change", "odd"),
    [
        (lambda t: t.update({"p/1/b": torch.zeros(3, dtype=torch.complex64)}), "p/1/b"),
        (lambda t: t.update({"p/1/b": torch.zeros(3, dtype=torch.int64)}), "p/1/b"),
        (lambda t: t.update({"p/0/a": torch.zeros(3, 2)}), "p/0/a"),
        (lambda t: t.pop("p/0/b"), "p/0/b"),
        (lambda t: t.pop("p/shared/q"), "p/shared/q"),
        (lambda t: t.update({"p/zz/a": torch.zeros(2, 3)}), "p/zz/a"),
        (lambda t: t.update({"p/²/a": torch.zeros(2, 3)}), "p/²/a"),
        (lambda t: t.update({f"p/{'9' * 5000}/a": torch.zeros(2, 3)}), "p/9"),
        # Another compressor's: nobody asks for it here.
        (lambda t: t.update({"p/0/other": torch.zeros(1), "q/x/y": torch.zeros(1)}), ""),
        (lambda t: t.clear(), ""),
    ],
)
def test_odd_parts_of_what_a_compressor_remembers_are_found(change, odd: str) -> None:
    errors = {"a": torch.zeros(2, 3), "b": torch.zeros(3)}
    shared = {"steps": torch.tensor(0), "q": torch.zeros(3, 1)}
    exchanging = SimpleNamespace(errors=errors, shared=shared)
    learner = SimpleNamespace(exchangings=lambda: {"p": exchanging})
    saved = {f"p/{rank}/{name}": t for rank in (0, 1) for name, t in errors.items()}
    saved |= {f"p/shared/{name}": t for name, t in shared.items()}
    assert not _odd_exchanges(learner, saved)
    change(saved)
    found = _odd_exchanges(learner, saved)
    assert all(name.startswith(odd) for name in found) and bool(found) == bool(odd)


@pytest.mark.slow
def test_a_resealed_exchange_is_refused_where_gradients_are_compressed(stopped) -> None:
    go_on, newest = stopped(parallel={"gradients": {"type": "topk"}}, launcher=TWO)
    tensors = read_tensors(newest / "exchange.safetensors")
    _of_other_shape(tensors)
    _reseal(newest, "exchange.safetensors", tensors)
    with pytest.raises(
        PenstockError, match=r"exchange\.safetensors belongs to another training"
    ):
        go_on()


def _reseal_more(folder: Path, file: str, tensors: Tensors) -> None:
    """Add a file of tensors to a checkpoint."""
    write_tensors(folder / file, tensors)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][file] = {
        "size_bytes": (folder / file).stat().st_size,
        "sha256": sha256_file(folder / file),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
