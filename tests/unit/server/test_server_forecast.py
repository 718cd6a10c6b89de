# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister_server.queue.forecast import forecast_starts

NOW = 1000
TIMES = st.integers(0, 10_000)


@pytest.mark.parametrize(
    ("free_at", "duration", "starts"),
    [
        ([], 10, [None, None]),
        ([NOW], 10, [1000, 1010, 1020]),
        ([NOW, NOW], 10, [1000, 1000, 1010, 1010]),
        ([1004, 1007], 10, [1004, 1007, 1014, 1017, 1024]),
        ([1001, 1030], 10, [1001, 1011, 1021, 1030, 1031]),
        ([990], 10, [1000, 1010]),
        ([NOW], 0, [1000, 1000]),
        ([NOW], None, [1000, None, None]),
        ([1050, NOW], None, [1000, 1050, None]),
        ([None], 10, [None, None]),
        ([None, 1005], 10, [1005, 1015, 1025]),
    ],
    ids=[
        "no host",
        "one host",
        "two hosts",
        "each host takes the next job as it is free",
        "a long job holds its host",
        "a host that should be free already",
        "jobs that take no time",
        "nobody knows how long jobs take",
        "an estimate of the trainer alone",
        "nobody knows when the host is free",
        "one of two is known",
    ],
)
def test_starts_are_those_of_a_schedule_by_hand(
    free_at: list[int | None], duration: int | None, starts: list[int | None]
) -> None:
    """Each waiting job starts on the host that is free first, and holds it for the mean duration."""
    assert starts == forecast_starts(NOW, free_at, duration, len(starts))


def test_nobody_waits() -> None:
    """No waiting job, no start."""
    assert [] == forecast_starts(NOW, [NOW], 10, 0)


@given(
    free_at=st.lists(st.none() | TIMES, max_size=8), duration=st.none() | TIMES, waiting=st.integers(0, 30), now=TIMES
)
def test_starts_never_go_down_and_are_never_past(
    free_at: list[int | None], duration: int | None, waiting: int, now: int
) -> None:
    """There is one answer for each job, none before now, none before that of the job ahead, and after an unknown one
    only unknown ones.
    """
    starts = forecast_starts(now, free_at, duration, waiting)
    known = [start for start in starts if start is not None]
    assert waiting == len(starts)
    assert known == sorted(known)
    assert starts == known + [None] * (waiting - len(known))
    assert all(start >= now for start in known)


@given(free_at=st.lists(TIMES, min_size=1, max_size=8), duration=TIMES, waiting=st.integers(1, 30), extra=TIMES)
def test_one_more_host_delays_nobody(free_at: list[int], duration: int, waiting: int, extra: int) -> None:
    """With one host more every job starts as early or earlier."""
    fewer = forecast_starts(NOW, free_at, duration, waiting)
    more = forecast_starts(NOW, [*free_at, extra], duration, waiting)
    assert all(a is not None and b is not None and a <= b for a, b in zip(more, fewer, strict=True))
