"""The ledger: no window ever holds more than its limit, and what is reserved is settled once."""

from __future__ import annotations

import math
import threading
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.limits.headers import LimitReading
from lbgpt_pandas.engine.limits.quota import Limits, Quota, Reservation, shared_quota
from lbgpt_pandas.engine.limits.windows import Charge, Window

ONE: dict[Any, float] = {"requests": 1.0}


def admitted_at(quota: Quota, rows: int, *, now: float = 1000.0, cost: Any = None) -> list[float]:
    """When each of so many requests is let in, if nothing ever waits longer than it must."""
    times = []
    for _ in range(rows):
        now = quota.ready_at(cost or ONE, now)
        assert quota.reserve(cost or ONE, now) is not None
        times.append(now)
    return times


def most_in(times: list[float], span_s: float) -> int:
    return max(sum(start <= time < start + span_s for time in times) for start in times)


@pytest.mark.parametrize("burst_s", [None, 1.0, 10.0, 60.0])
@pytest.mark.parametrize("rpm", [1, 3, 60, 100, 1200])
def test_no_minute_and_no_burst_window_holds_more_than_its_limit(
    rpm: int, burst_s: float | None
) -> None:
    times = admitted_at(Quota(Limits(rpm=rpm, burst_s=burst_s)), 3 * rpm + 5)
    assert most_in(times, 60.0) <= rpm
    if burst_s is not None and (rpm * burst_s / 60) % 1 < 0.05 * rpm * burst_s / 60:
        assert most_in(times, burst_s) <= max(1, rpm * burst_s / 60)


@pytest.mark.parametrize(
    ("rpm", "burst_s", "ideal_s"), [(1200, 1.0, 119.0), (1200, 10.0, 110.0), (1200, 60.0, 60.0)]
)
def test_two_minutes_worth_takes_hardly_longer_than_it_must(
    rpm: int, burst_s: float, ideal_s: float
) -> None:
    times = admitted_at(Quota(Limits(rpm=rpm, burst_s=burst_s)), 2 * rpm)
    assert ideal_s <= times[-1] - times[0] <= ideal_s * 1.04 + 0.5


def test_a_second_of_quota_is_spread_so_that_jitter_meets_a_reserve() -> None:
    """A server with a bucket of one second's quota never sees it empty, even if half a second
    of requests arrives at once."""
    times = admitted_at(Quota(Limits(rpm=1200, burst_s=1.0)), 400)
    level, last = 20.0, times[0]
    for time in times:
        level = min(20.0, level + (time - last) * 20.0) - 1.0
        last = time
        assert level >= 9.0


def test_limit_of_one_is_one_a_minute() -> None:
    times = admitted_at(Quota(Limits(rpm=1)), 3)
    assert all(60.0 <= later - earlier <= 60.3 for earlier, later in pairwise(times))


def test_tokens_alone_are_limited_without_any_limit_on_requests() -> None:
    quota = Quota(Limits(tpm=100))
    cost: Any = {"requests": 1.0, "tokens": 40.0}
    times = admitted_at(quota, 5, cost=cost)
    assert [round(time - times[0]) for time in times] == [0, 0, 60, 60, 120]
    assert not quota.fits({"requests": 1.0, "tokens": 101.0})


def test_no_limits_let_everything_through() -> None:
    assert len(set(admitted_at(Quota(Limits()), 5_000))) == 1


def test_looking_ahead_changes_nothing() -> None:
    quota = Quota(Limits(rpm=2))
    admitted_at(quota, 2)
    assert quota.ready_at(ONE, 1030.0) == quota.ready_at(ONE, 1000.0)
    assert quota.reserve(ONE, 1030.0) is None
    assert quota.left("requests", 1030.0) == 0


def test_what_was_not_sent_is_given_back_at_once() -> None:
    quota = Quota(Limits(rpm=1))
    first = quota.reserve(ONE, 1000.0)
    assert first is not None
    assert quota.reserve(ONE, 1000.0) is None
    first.cancel(now=1001.0)
    first.cancel(now=1001.0)
    assert quota.reserve(ONE, 1001.0) is not None
    assert quota.reserve(ONE, 1001.0) is None


def test_a_refused_call_gives_its_tokens_back_but_counts_as_a_request() -> None:
    quota = Quota(Limits(rpm=2, tpm=100))
    cost: Any = {"requests": 1.0, "tokens": 90.0}
    reservation = quota.reserve(cost, 1000.0)
    assert reservation is not None
    reservation.refuse(now=1000.1)
    assert quota.left("tokens", 1000.1) == 100
    assert quota.left("requests", 1000.1) == 1


def test_an_answer_costs_what_it_took_and_at_least_what_was_counted_at_admission() -> None:
    quota = Quota(Limits(tpm=1000))
    cost: Any = {"requests": 1.0, "tokens": 300.0}
    for floor, actual, expected in ((0.0, 50.0, 50.0), (200.0, 50.0, 200.0), (200.0, 400.0, 400.0)):
        before = quota.left("tokens", 1000.0)
        reservation = quota.reserve(cost, 1000.0, floor=floor)
        assert reservation is not None
        reservation.commit({"tokens": actual}, now=1001.0)
        assert (before or 0) - (quota.left("tokens", 1001.0) or 0) == expected


def test_a_long_call_counts_from_its_start_and_only_for_a_minute() -> None:
    quota = Quota(Limits(tpm=100))
    cost: Any = {"requests": 1.0, "tokens": 100.0}
    reservation = quota.reserve(cost, 1000.0)
    assert reservation is not None
    assert quota.ready_at(cost, 1059.0) >= 1060.0
    assert quota.reserve(cost, 1061.0) is not None
    reservation.commit({"tokens": 50.0}, now=1090.0)  # its minute is over, the other one's is not
    assert quota.left("tokens", 1090.0) == 0


@pytest.mark.parametrize("name", ["rpm", "tpm"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "60"])
def test_limits_that_make_no_sense_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"limit_{name}"):
        Limits(**{name: value})


@pytest.mark.parametrize("value", [0, -1, 61, float("nan"), True, "1"])
def test_a_burst_that_makes_no_sense_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="limit_burst_s"):
        Limits(rpm=60, burst_s=value)


def test_a_group_shares_one_quota_and_one_set_of_limits() -> None:
    first = shared_quota("team", Limits(rpm=5))
    assert shared_quota("team", Limits(rpm=5)) is first
    assert shared_quota(None, Limits(rpm=5)) is not first
    with pytest.raises(ConfigurationError, match="team"):
        shared_quota("team", Limits(rpm=6))


def test_threads_never_reserve_more_than_the_limit() -> None:
    quota = Quota(Limits(rpm=500))
    got: list[Reservation] = []

    def take() -> None:
        for _ in range(300):
            reservation = quota.reserve(ONE, 1000.0)
            if reservation is not None:
                got.append(reservation)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 500


steps = st.lists(
    st.tuples(
        st.sampled_from(["take", "commit", "keep", "refuse", "cancel", "wait"]),
        st.floats(0, 30),
        st.integers(0, 60),
    ),
    max_size=120,
)


@given(steps, st.integers(1, 8), st.integers(50, 200), st.sampled_from([None, 1.0, 10.0]))
@settings(max_examples=150, deadline=None)
def test_any_history_keeps_the_windows_and_the_sums(
    history: list[tuple[str, float, int]], rpm: int, tpm: int, burst_s: float | None
) -> None:
    quota, now = Quota(Limits(rpm=rpm, tpm=tpm, burst_s=burst_s)), 1000.0
    open_calls: list[tuple[Reservation, float, int]] = []
    sent: list[tuple[float, int]] = []
    for action, seconds, tokens in history:
        now += seconds if action == "wait" else 0.0
        if action == "take":
            cost: Any = {"requests": 1.0, "tokens": float(tokens)}
            expected = quota.ready_at(cost, now) <= now
            reservation = quota.reserve(cost, now)
            assert (reservation is not None) == expected
            if reservation is not None:
                open_calls.append((reservation, now, tokens))
                sent.append((now, tokens))
        elif open_calls and action != "wait":
            reservation, at, taken = open_calls.pop(0)
            match action:
                case "commit":
                    reservation.commit({"tokens": float(min(tokens, taken))}, now=now)
                case "keep":
                    reservation.keep(now=now)
                case "refuse":
                    reservation.refuse(now=now)
                case "cancel":
                    reservation.cancel(now=now)
                    sent.remove((at, taken))
    for start, _ in sent:
        assert sum(start <= at < start + 60 for at, _ in sent) <= rpm
    for reservation, _, _ in open_calls:
        reservation.cancel(now=now)
    for resource, amount in quota.reserved.items():
        settled = quota.committed.get(resource, 0.0) + quota.released.get(resource, 0.0)
        assert amount == pytest.approx(settled)


def reading(limit: int | None, remaining: int | None, reset_s: float | None) -> Any:
    return {"requests": LimitReading(limit, remaining, reset_s)}


def reserved(quota: Quota, now: float) -> Reservation:
    reservation = quota.reserve(ONE, now)
    assert reservation is not None
    return reservation


def test_foreign_usage_in_headers_is_kept_clear_of_until_its_reset() -> None:
    quota = Quota(Limits(rpm=100, burst_s=60.0))
    first = reserved(quota, 1000.0)
    quota.observe(reading(100, 30, 40.0), first, now=1000.1)  # 69 are somebody else's
    assert quota.left("requests", 1000.1) == 30
    assert quota.left("requests", 1041.0) == 99


def test_older_headers_are_out_of_date() -> None:
    quota = Quota(Limits(rpm=100, burst_s=60.0))
    first, second = reserved(quota, 1000.0), reserved(quota, 1000.1)
    quota.observe(reading(100, 98, 60.0), second, now=1000.2)
    quota.observe(reading(100, 10, 60.0), first, now=1000.3)
    assert quota.left("requests", 1000.3) == 98


def test_headers_without_a_remainder_change_nothing() -> None:
    quota = Quota(Limits(rpm=100))
    quota.observe(reading(None, None, None), reserved(quota, 1000.0), now=1000.1)
    assert (quota.limit("requests"), quota.left("requests", 1000.1)) == (100, 99)
    assert quota.take_notices() == []
    assert quota.source == "local"


def test_a_lower_limit_in_headers_is_kept_to_and_told() -> None:
    quota = Quota(Limits(rpm=100))
    quota.observe(reading(40, 39, 60.0), reserved(quota, 1000.0), now=1000.1)
    assert quota.limit("requests") == 40
    assert "40" in quota.take_notices()[0]
    assert quota.take_notices() == []
    assert quota.source == "header"


def test_a_limit_that_headers_lowered_is_raised_by_them_but_not_above_the_configured() -> None:
    quota = Quota(Limits(rpm=100))
    for stated, expected in ((40, 40), (70, 70), (500, 100)):
        quota.observe(reading(stated, 9, 60.0), reserved(quota, 1000.0), now=1000.1)
        assert quota.limit("requests") == expected


@pytest.mark.parametrize(
    "said",
    [
        LimitReading(5, 4, 1.0),  # a gateway's limit of a second
        LimitReading(1, None, None),
        LimitReading(None, 0, None),
    ],
)
@pytest.mark.parametrize("told", [600, None])
def test_headers_that_say_nothing_about_a_minute_change_nothing(said, told) -> None:
    quota = Quota(Limits(rpm=told))
    for _ in range(3):
        quota.observe({"requests": said}, reserved(quota, 1000.0), now=1000.1)
    assert quota.limit("requests") == told
    assert quota.ready_at({"requests": 1.0}, 1000.2) == 1000.2


def test_a_minutes_limit_is_not_taken_for_a_bucket() -> None:
    quota = Quota(Limits(rpm=5))
    several = [reserved(quota, 1000.0) for _ in range(5)]
    for number, each in enumerate(several):
        # Each was sent before the others were answered.
        quota.observe(reading(5, 4 - number, 12.0 * (number + 1)), each, now=1000.1)
    assert (quota.meters["requests"].burst_s, quota.source) == (None, "local")


def test_what_is_left_of_a_day_says_nothing_about_the_minute() -> None:
    quota = Quota(Limits(rpm=600))
    quota.observe(reading(600, 0, 80_000.0), reserved(quota, 1000.0), now=1000.1)
    assert quota.ready_at({"requests": 1.0}, 1000.2) == 1000.2


def test_what_was_answered_is_stronger_than_a_lower_limit_in_headers() -> None:
    quota = Quota(Limits(rpm=600))
    for _ in range(10):
        last = reserved(quota, 1000.0)
    quota.observe(reading(5, 1, 60.0), last, now=1000.1)
    assert quota.limit("requests") == 600


def test_no_request_is_too_large_for_a_limit_that_was_only_read() -> None:
    quota = Quota(Limits(tpm=100_000))
    quota.observe({"tokens": LimitReading(1, 0, 60.0)}, reserved(quota, 1000.0), now=1000.1)
    assert quota.limit("tokens") == 1
    assert quota.fits({"tokens": 50.0})
    assert quota.ready_at({"tokens": 50.0}, 1000.2) < 1100


def test_a_higher_limit_in_headers_is_not_believed() -> None:
    quota = Quota(Limits(rpm=100))
    quota.observe(reading(5000, 4999, 0.01), reserved(quota, 1000.0), now=1000.1)
    assert quota.limit("requests") == 100


def test_azures_limit_of_ten_seconds_is_not_taken_for_a_minutes() -> None:
    quota = Quota(Limits(rpm=600))
    quota.observe(reading(100, 99, None), reserved(quota, 1000.0), now=1000.1)
    assert quota.limit("requests") == 600
    assert most_in(admitted_at(quota, 300, now=1000.2), 10.0) <= 100


def test_an_unknown_limit_is_taken_from_headers() -> None:
    quota = Quota(Limits())
    first = reserved(quota, 1000.0)
    quota.observe(reading(1200, 19, 0.05), first, now=1000.1)
    times = admitted_at(quota, 600, now=1000.1)
    assert most_in(times, 1.0) <= 20
    assert times[-1] - times[0] <= 31.0


def test_a_bucket_of_one_second_shows_in_the_first_answer() -> None:
    quota = Quota(Limits(rpm=1200))
    quota.observe(reading(1200, 19, 0.05), reserved(quota, 1000.0), now=1000.1)
    assert most_in(admitted_at(quota, 200, now=1000.1), 1.0) <= 20


def test_a_minute_that_others_use_is_not_taken_for_a_short_bucket() -> None:
    quota = Quota(Limits(rpm=1200))
    quota.observe(reading(1200, 19, 30.0), reserved(quota, 1000.0), now=1000.1)
    assert quota.left("requests", 1000.1) == 19
    assert quota.left("requests", 1031.0) == 1199


def refuse_beyond(quota: Quota, most: int, rows: int, *, now: float, wait_s: float | None) -> None:
    """Send `rows` at once to a server that takes `most` of them."""
    calls = [reserved(quota, now) for _ in range(rows)]
    for call in calls[:most]:
        call.commit({}, now=now + 0.1)
    for call in calls[most:]:
        call.refuse(now=now + 0.1)
        quota.refused(call, wait_s or 1.0, asked=wait_s is not None, learns=True, now=now + 0.1)


def test_ten_seconds_are_learned_from_a_refusal_with_its_wait() -> None:
    quota = Quota(Limits(rpm=60))
    refuse_beyond(quota, 10, 60, now=1000.0, wait_s=9.9)
    times = admitted_at(quota, 60, now=1000.2)
    assert times[0] >= 1010.0
    assert most_in(times, 10.0) <= 10
    assert times[-1] - times[0] <= 5 * 10.3 + 0.6


def test_one_second_is_learned_from_what_was_admitted() -> None:
    quota = Quota(Limits(rpm=1200))
    refuse_beyond(quota, 20, 64, now=1000.0, wait_s=None)
    assert most_in(admitted_at(quota, 300, now=1001.2), 1.0) <= 20


def test_half_the_limit_is_learned_from_one_refusal_and_grows_back_slowly() -> None:
    quota = Quota(Limits(rpm=100, burst_s=60.0))
    refuse_beyond(quota, 50, 100, now=1000.0, wait_s=59.9)
    assert quota.limit("requests") == 50
    assert "50" in quota.take_notices()[0]
    quota.ready_at(ONE, 1120.0)
    assert 54 <= (quota.limit("requests") or 0) <= 56
    quota.ready_at(ONE, 5000.0)
    assert quota.limit("requests") == 100


def test_one_refusal_by_chance_lowers_nothing_where_the_burst_was_told() -> None:
    quota = Quota(Limits(rpm=1200, burst_s=1.0))
    admitted_at(quota, 300)
    quota.refused(reserved(quota, 1020.0), 0.04, asked=True, learns=True, now=1020.1)
    assert quota.limit("requests") == 1200
    assert quota.ready_at(ONE, 1020.1) == pytest.approx(1020.14)


def test_without_any_limit_refusals_hold_the_rate_to_what_was_admitted() -> None:
    quota, now = Quota(Limits()), 1000.0
    for _ in range(10):
        refuse_beyond(quota, 1, 1, now=now, wait_s=None)
        now += 0.1
    refuse_beyond(quota, 0, 1, now=now, wait_s=0.01)
    times = admitted_at(quota, 100, now=now + 0.2)
    assert 8.0 <= times[-1] - times[0] <= 12.0


def test_a_minute_that_was_found_out_grows_back_and_nobody_is_told_of_a_limit_not_configured() -> (
    None
):
    quota = Quota(Limits())
    refuse_beyond(quota, 30, 40, now=1000.0, wait_s=59.9)
    assert quota.limit("requests") == pytest.approx(30, abs=1)
    quota.ready_at(ONE, 1180.0)
    assert (quota.limit("requests") or 0) > 33
    calls = [reserved(quota, 1180.0 + number) for number in range(3)]
    for call in calls:
        call.refuse(now=1185.0)
        quota.refused(call, 0.1, asked=True, learns=True, now=call.at + 2)
    assert quota.take_notices() == []


def test_slow_down_is_four_fifths_of_the_last_minute_and_a_little_more_each_minute() -> None:
    quota = Quota(Limits())
    now = 1000.0
    for _ in range(600):
        last = reserved(quota, now)
        now += 0.1
    quota.slow_down(last, now=now)
    times = admitted_at(quota, 480, now=now)
    assert 55.0 <= times[-1] - times[0] <= 61.0


def test_calls_that_are_told_to_slow_down_together_count_once() -> None:
    quota = Quota(Limits(rpm=600))
    calls = [reserved(quota, 1000.0) for _ in range(9)]
    for call in calls:
        call.refuse(now=1000.5)
        quota.slow_down(call, now=1000.5)
    times = admitted_at(quota, 60, now=1000.5)
    assert times[-1] - times[0] <= 15.0


def test_the_first_call_told_to_slow_down_does_not_stop_the_rest() -> None:
    quota = Quota(Limits(rpm=600))
    call = reserved(quota, 1000.0)
    call.refuse(now=1000.0)
    quota.slow_down(call, now=1000.0)
    times = admitted_at(quota, 30, now=1000.0)
    assert times[-1] - times[0] <= 40.0


def test_a_lowered_limit_can_wait_for_weeks() -> None:
    quota = Quota(Limits())
    call = reserved(quota, 1000.0)
    call.refuse(now=1000.0)
    quota.refused(call, 30.0, asked=True, learns=True, now=1000.0)
    assert quota.ready_at({"requests": 1.0}, 1000.0 + 30 * 86_400) < math.inf


def test_a_charge_that_was_stamped_later_keeps_its_count() -> None:
    window = Window(100.0, 60.0)
    late, early = Charge(0.0, 50.0), Charge(1.0, 40.0)
    window.add(late)
    window.add(early)
    late.at = 30.0
    gone = 1.0 + window.span_s + 0.5
    window.change(early, 90.0, gone)
    early.amount = 90.0
    assert window.used(gone) == 140.0
    assert window.used(30.0 + window.span_s) == 0.0


def test_a_storm_of_refusals_lowers_the_limit_once() -> None:
    quota = Quota(Limits(rpm=1_200, burst_s=10.0))
    admitted_at(quota, 400)
    now = 1025.0
    for _ in range(2):
        calls = [reserved(quota, now) for _ in range(50)]
        for call in calls:
            call.refuse(now=now + 0.1)
            quota.refused(call, 0.05, asked=True, learns=True, now=now + 0.1)
        now += 1.0
    assert quota.limit("requests") == pytest.approx(1_080)


def test_shares_are_those_of_the_minute_and_of_the_scarcest_resource() -> None:
    quota = Quota(Limits(rpm=1_200, tpm=1_000, burst_s=1.0))
    assert quota.share(1000.0) == 1.0
    cost: Any = {"requests": 1.0, "tokens": 10.0}
    for _ in range(5):
        assert quota.reserve(cost, 1000.0) is not None
    assert quota.share(1000.0) == pytest.approx(0.95)  # 50 of 1,000 tokens, 5 of 1,200 requests
    assert Quota(Limits()).share(1000.0) is None


def test_a_call_that_sets_off_late_counts_from_then() -> None:
    quota = Quota(Limits(rpm=2))
    first, second = reserved(quota, 1000.0), reserved(quota, 1000.0)
    first.stamp(now=1000.3)
    second.stamp(now=1000.2)
    assert quota.ready_at(ONE, 1000.4) == pytest.approx(1060.55)
    assert quota.reserve(ONE, 1060.5) is None
    assert quota.reserve(ONE, 1060.56) is not None


def test_a_stamp_after_the_window_is_over_changes_nothing() -> None:
    quota = Quota(Limits(rpm=1))
    first = reserved(quota, 1000.0)
    reserved(quota, 1061.0)
    first.stamp(now=1062.0)
    assert quota.ready_at(ONE, 1063.0) == pytest.approx(1121.25)
