"""How many processes go on: pure, with a clock of the test's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.contracts.learn import Growth, Recovery
from penstock.core.errors import Outgrown, RankLost, StoreError, TrainingError, UserError
from penstock.train.elastic_pool import ElasticPool

ELASTIC = Recovery(restarts=3, fewest=1, return_seconds=60.0)


def lost(*ranks, size=None):
    return RankLost("gone", ranks, 0, size)


def test_those_that_are_left_go_on_and_losses_add_up():
    crew = ElasticPool(ELASTIC, 4)
    assert crew.lost(lost(3), 0.0) and crew.processes == 3
    assert crew.lost(lost(0, 1), 10.0) and crew.processes == 1
    assert crew.growth(10.0) == Growth(4, 3_590.0)
    crew.outgrown(Outgrown("room", 4, 1))
    assert (crew.processes, crew.restarts, crew.taken_in) == (4, 2, 1)


def test_a_fixed_number_stays_and_never_grows():
    crew = ElasticPool(Recovery(restarts=3), 4)
    assert crew.lost(lost(3), 0.0)
    assert (crew.processes, crew.growth(0.0), crew.may_shrink) == (4, None, False)


def test_where_all_are_lost_as_many_start_again():
    crew = ElasticPool(ELASTIC, 4)
    assert crew.lost(lost(0, 1, 2, 3), 0.0) and crew.processes == 4
    assert (
        crew.lost(lost(0, 1, size=2), 1.0) and crew.processes == 2
    )  # the cluster had room for two


def test_what_the_cluster_had_room_for_is_what_can_be_lost():
    crew = ElasticPool(ELASTIC, 8)
    assert crew.lost(lost(1, size=3), 0.0) and crew.processes == 2
    crew.outgrown(Outgrown("room", 5, 2))
    assert crew.processes == 5


def test_restarts_are_counted_within_an_hour():
    crew = ElasticPool(Recovery(restarts=2, fewest=None), 2)
    assert crew.lost(lost(1), 0.0) and crew.lost(lost(1), 100.0)
    assert crew.lost(lost(1), 3_601.0)
    assert not crew.lost(lost(1), 3_602.0)


def test_taking_in_waits_until_one_more_loss_leaves_a_restart_for_other_troubles():
    crew = ElasticPool(ELASTIC, 4)
    assert crew.lost(lost(0), 0.0)
    assert crew.growth(0.0) == Growth(4, 60.0)
    assert crew.lost(lost(0), 100.0)
    assert crew.growth(100.0) == Growth(4, 3_500.0)
    assert crew.growth(3_590.0) == Growth(4, 60.0)


def test_a_loss_after_taking_in_doubles_the_wait():
    crew = ElasticPool(ELASTIC, 4)
    assert crew.lost(lost(0), 0.0)
    crew.outgrown(Outgrown("room", 4, 3))
    assert crew.lost(lost(0), 5_000.0)
    assert crew.growth(5_000.0) == Growth(4, 120.0)
    assert crew.lost(lost(0), 20_000.0)
    assert crew.growth(20_000.0) == Growth(4, 120.0)


def test_taking_in_that_brought_nothing_doubles_the_wait():
    crew = ElasticPool(ELASTIC, 4)
    crew.outgrown(Outgrown("room", 4, 3))
    crew.outgrown(Outgrown("room", 4, 3))
    assert crew.growth(0.0) == Growth(4, 120.0)


@pytest.mark.parametrize(
    "error",
    [
        RankLost("cannot reach the others"),
        RankLost("not all have called", (0, 1, 2, 3), -1, 4),
        StoreError("there is no store"),
        UserError("no room"),
    ],
)
def test_those_that_were_there_go_on_where_more_do_not_come_to_their_first_step(error):
    crew = ElasticPool(ELASTIC, 4)
    assert not crew.falls_back(error)
    assert crew.lost(lost(0), 0.0) and crew.processes == 3
    assert not crew.falls_back(error)
    crew.outgrown(Outgrown("room", 4, 3))
    assert crew.falls_back(error)
    assert (crew.processes, crew.restarts, crew.growth(0.0)) == (3, 1, Growth(4, 120.0))
    assert not crew.falls_back(error)


@pytest.mark.parametrize(
    "error", [RankLost("killed", (1,), 7, 4), TrainingError("the model is unhappy")]
)
def test_what_happens_at_work_is_no_falling_back(error):
    crew = ElasticPool(ELASTIC, 4)
    crew.outgrown(Outgrown("room", 4, 3))
    assert not crew.falls_back(error)


@given(
    st.integers(1, 8),
    st.integers(0, 5),
    st.lists(
        st.tuples(st.integers(0, 2_000), st.integers(0, 9), st.booleans()), max_size=20
    ),
)
def test_it_stays_within_its_bounds_and_taking_in_never_ends_it(fewest, restarts, story):
    full = fewest + 3
    crew, now, losses = (
        ElasticPool(
            Recovery(restarts=restarts, fewest=fewest, return_seconds=60.0), full
        ),
        0,
        [],
    )
    for wait, gone, grown in story:
        growth = crew.growth(now)
        assert growth is not None and growth.to == full and growth.after_seconds >= 60.0
        if grown and crew.processes < full:
            now += growth.after_seconds
            crew.outgrown(Outgrown("room", full, crew.processes))
            assert (
                restarts < 2
                or len([at for at in losses if now - at < 3_600.0]) < restarts - 1
            )
        now += wait
        losses.append(now)
        recent = len([at for at in losses if now - at < 3_600.0])
        assert crew.lost(lost(*range(gone)), now) == (recent <= restarts)
        if recent > restarts:
            return
        assert fewest <= crew.processes <= full


@pytest.mark.parametrize("room", [2, 9])
def test_room_beyond_what_was_asked_for_is_left(room):
    crew = ElasticPool(ELASTIC, 4)
    crew.outgrown(Outgrown("room", room, 1))
    assert crew.processes == min(room, 4)
