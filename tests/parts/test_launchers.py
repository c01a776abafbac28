"""The local launcher: values, errors, deaths and signals of real processes."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from penstock.contracts.learn import Growth, Launcher
from penstock.core.errors import Interrupted, RecipeError, TrainingError
from penstock.recipe.schema import load_recipe
from penstock.testing.laws import launchers as laws


def launched():
    """The processes that a launcher has started from here and that still live."""
    return [
        child
        for child in psutil.Process().children()
        if "penstock.parts.launchers" in " ".join(child.cmdline())
    ]


def local(**words):
    return Launcher.load({"type": "local", **words})


def place(world, word):
    return (
        word,
        world.rank,
        world.size,
        world.threads,
        os.environ.get("OMP_NUM_THREADS"),
        os.environ.get("OMP_WAIT_POLICY"),
        os.getpid(),
    )


def fail_at_one(world):
    if world.rank == 1:
        raise RecipeError("rank 1 says no", ())
    time.sleep(600)


def stumble(world):
    if world.rank == 0:
        raise ZeroDivisionError("by 0")
    time.sleep(600)


class Unpicklable(Exception):
    def __init__(self):
        super().__init__("cannot travel")
        self.lock = threading.Lock()


def fail_strangely(world):
    raise Unpicklable


def die(world, number):
    if world.rank == 1:
        os.kill(os.getpid(), number)
    time.sleep(600)


def leave(world):
    os._exit(3)


def wait_for_term(world, path):
    from penstock.train.stop import Stop

    with Stop() as stop:
        with open(f"{path}.{world.rank}", "w") as file:
            file.write(str(os.getpid()))
        while not stop.asked:
            time.sleep(0.02)
        raise Interrupted(f"rank {world.rank} has heard")


def linger(world, path):
    """At work; once asked to stop, takes its time over it, as a checkpoint does."""
    from penstock.core.heartbeat import Heartbeat
    from penstock.train.stop import Stop

    with Stop() as stop:
        Heartbeat.here().progress(0)
        while not stop.asked:
            time.sleep(0.02)
        with open(path, "w") as file:
            file.write("asked")
        time.sleep(1.0)
        raise Interrupted("saved")


def finish(world):
    from penstock.core.heartbeat import Heartbeat
    from penstock.train.stop import Stop

    with Stop() as stop:
        Heartbeat.here().progress(0)
        while not stop.asked:
            time.sleep(0.02)
        return "done all the same"


def print_much(world):
    print("not for the standard output")  # a parent may print JSON there
    return b"x" * 3_000_000


def test_limits_are_as_declared():
    assert local().limits() == (None, None)
    assert local(processes=2, threads=3).limits() == (2, 3)


def test_a_wrong_number_is_refused_with_its_path():
    with pytest.raises(RecipeError, match=r"launcher\.processes.*at least 1"):
        load_recipe(
            {
                "source": {"type": "files", "path": "x"},
                "launcher": {"type": "local", "processes": 0},
            }
        )


def test_one_process_is_this_one():
    assert local().launch(place, ("a",), processes=1, threads=2)[:4] == ("a", 0, 1, 2)
    assert local().launch(place, ("a",), processes=1, threads=2)[-1] == os.getpid()


def test_two_processes_know_their_place():
    word, rank, size, threads, omp, policy, pid = local().launch(
        place, ("a",), processes=2, threads=1
    )
    assert (word, rank, size, threads, omp, policy) == ("a", 0, 2, 1, "1", "passive")
    assert pid != os.getpid()


def test_what_a_child_prints_is_not_on_our_standard_output(capfd):
    assert len(local().launch(print_much, (), processes=2, threads=1)) == 3_000_000
    out, err = capfd.readouterr()
    assert out == ""
    assert "not for" in err


def test_an_error_of_ours_comes_back_once_and_ends_the_others():
    start = time.monotonic()
    with pytest.raises(RecipeError, match="rank 1 says no"):
        local().launch(fail_at_one, (), processes=2, threads=1)
    assert time.monotonic() - start < 200  # a hang, not a speed
    assert not launched()


def test_an_error_of_python_keeps_its_type_and_traceback():
    with pytest.raises(ZeroDivisionError) as caught:
        local().launch(stumble, (), processes=2, threads=1)
    assert "in stumble" in caught.value.__notes__[0]


def test_an_error_that_cannot_travel_is_told():
    with pytest.raises(TrainingError, match="cannot travel"):
        local().launch(fail_strangely, (), processes=2, threads=1)


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (die, (signal.SIGKILL,), "process 1 .*was killed by SIGKILL.*memory"),
        (leave, (), "ended with code 3"),
    ],
)
def test_a_death_is_named(function, arguments, words):
    with pytest.raises(TrainingError, match=words):
        local().launch(function, arguments, processes=2, threads=1)
    assert not launched()


def _await(path, seconds=200.0):
    until = time.monotonic() + seconds
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_each_child_once(tmp_path, number):
    code = (
        "import sys; from penstock.contracts.learn import Launcher; from penstock.core.errors import"
        " Interrupted\nfrom tests.parts.test_launchers import wait_for_term\ntry:\n   "
        " Launcher.load('local').launch(wait_for_term, (sys.argv[1],), processes=2, threads=1)\nexcept"
        " Interrupted as error:\n    print(error)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "pid")],
        stdout=subprocess.PIPE,
        text=True,
    )
    for rank in (0, 1):
        _await(tmp_path / f"pid.{rank}")
    parent.send_signal(number)
    assert parent.communicate(timeout=60)[0].strip() == "rank 0 has heard"


def test_ctrl_c_while_ranks_stop_for_more_is_the_users_and_is_not_sent_twice(tmp_path):
    code = (
        "import sys; from penstock.contracts.learn import Growth, Launcher; from penstock.core.errors import"
        " Interrupted\nfrom tests.parts.test_launchers import linger\nlauncher = Launcher.load({'type':"
        " 'local', 'processes': [1, 2]})\ntry:\n    launcher.launch(linger, (sys.argv[1],), processes=1,"
        " threads=1, grows=Growth(2, 0.2))\nexcept Interrupted as error:\n    print(error)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "asked")],
        stdout=subprocess.PIPE,
        text=True,
    )
    _await(tmp_path / "asked")
    parent.send_signal(signal.SIGINT)
    assert parent.communicate(timeout=60)[0].strip() == "saved"


def test_what_is_done_before_it_heard_of_more_is_kept():
    assert (
        local(processes=[1, 2]).launch(
            finish, (), processes=1, threads=1, grows=Growth(2, 0.2)
        )
        == "done all the same"
    )


def test_children_do_not_outlive_a_killed_parent(tmp_path):
    code = (
        "import sys; from penstock.contracts.learn import Launcher; from tests.parts.test_launchers import"
        " wait_for_term;Launcher.load('local').launch(wait_for_term, (sys.argv[1],), processes=2, threads=1)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "pid")])
    for rank in (0, 1):
        _await(tmp_path / f"pid.{rank}")
    pids = [int((tmp_path / f"pid.{rank}").read_text()) for rank in (0, 1)]
    parent.kill()
    parent.wait()
    until = time.monotonic() + 10
    while any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        for pid in pids
    ):
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
def test_laws(law):
    law(Launcher.load("local"))


def test_a_world_that_may_grow_is_stopped_for_more():
    laws.grows(local(processes=[1, 2]))


def test_every_launcher_is_judged_somewhere():
    # the others in files of their own: they need more than processes
    assert Launcher.types() == ["env", "local", "ray", "spark"]
