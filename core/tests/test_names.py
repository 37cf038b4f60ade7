"""What may name a queue or a job, and how long anybody may make us wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protojobs.errors import ConfigurationError, OptionInvalid
from protojobs.names import DELAY_MAX_S, NAME_BYTES_MAX, check_count, check_name, check_seconds, just_before, parse_when

NEAR = " !ab~é\ud7ff\ue000\uffff\U00010000\U0010ffff"


class TestNames:
    @pytest.mark.parametrize(
        "name", ["emails", "Emails", "émails", "emails ", "'; DROP TABLE jobs; --", "%_\\", '"', "{x}:*", "📮" * 25]
    )
    def test_a_name_of_up_to_100_bytes_is_taken_as_it_is(self, name: str) -> None:
        assert check_name("queue", name) == name

    @pytest.mark.parametrize("name", ["", "x" * 101, "é" * 51, "a\nb", "\x00", "\x7f", "\u2028", "\x85", "\ud800"])
    def test_empty_long_and_unprintable_names_are_refused(self, name: str) -> None:
        with pytest.raises(OptionInvalid, match="queue"):
            check_name("queue", name)

    @pytest.mark.parametrize("name", [" ", "   ", "\u00a0", "\u200b\ufeff", "\u3000 "])
    def test_a_name_of_which_nothing_can_be_seen_is_refused(self, name: str) -> None:
        with pytest.raises(OptionInvalid, match="queue .* is blank"):
            check_name("queue", name)

    @given(st.text(NEAR, min_size=1, max_size=4), st.text(NEAR, min_size=1, max_size=4))
    def test_nothing_stands_between_a_name_and_what_is_just_before_it(self, name: str, other: str) -> None:
        place = just_before(name).encode()
        assert place < name.encode()
        assert not place < (other * 6).encode()[:NAME_BYTES_MAX] < name.encode()
        assert not place < other.encode() < name.encode()

    @pytest.mark.parametrize("name", ["", "\0", "a\0"])
    def test_nor_before_what_is_no_name(self, name: str) -> None:
        assert just_before(name) == name[:-1]

    @pytest.mark.parametrize("name", [None, 1, b"emails", ["emails"]])
    def test_what_is_no_string_is_refused(self, name: object) -> None:
        with pytest.raises(OptionInvalid, match="must be a string"):
            check_name("queue", name)

    @given(st.text())
    def test_any_text_is_either_taken_whole_or_refused_with_our_error(self, text: str) -> None:
        try:
            assert check_name("queue", text) == text
        except OptionInvalid:
            return
        assert 1 <= len(text.encode()) <= NAME_BYTES_MAX


class TestSeconds:
    @pytest.mark.parametrize(
        ("value", "seconds"), [(0, 0.0), (1.5, 1.5), (timedelta(minutes=1), 60.0), (DELAY_MAX_S, DELAY_MAX_S)]
    )
    def test_numbers_and_timedeltas_are_seconds(self, value: object, seconds: float) -> None:
        assert check_seconds("delay", value) == seconds

    @pytest.mark.parametrize(
        "value",
        [-1, -0.001, timedelta(seconds=-1), float("nan"), float("inf"), float("-inf"), 1e300, 10**400, -(10**400),
         timedelta.max, DELAY_MAX_S + 1, True, "10", None, 1j],
    )  # fmt: skip
    def test_negative_infinite_overflowing_and_wordy_delays_are_refused(self, value: object) -> None:
        with pytest.raises(OptionInvalid, match="delay"):
            check_seconds("delay", value)

    @pytest.mark.parametrize("value", [-1, 2**31, 1.0, True, "3", None])
    def test_counts_are_whole_numbers_within_their_range(self, value: object) -> None:
        with pytest.raises(OptionInvalid, match="retries"):
            check_count("retries", value)


class TestMoments:
    def test_aware_datetimes_become_utc(self) -> None:
        summer = timezone(timedelta(hours=2))
        assert parse_when("start", datetime(2030, 6, 1, 12, tzinfo=summer)) == datetime(2030, 6, 1, 10, tzinfo=UTC)

    def test_text_without_an_offset_is_read_in_the_zone_that_is_configured(self) -> None:
        assert parse_when("start", "2030-01-01 12:00:00", "Asia/Tokyo") == datetime(2030, 1, 1, 3, tzinfo=UTC)
        assert parse_when("start", "2030-01-01 12:00:00") == datetime(2030, 1, 1, 12, tzinfo=UTC)
        assert parse_when("start", "2030-01-01T12:00:00+01:00", "Asia/Tokyo") == datetime(2030, 1, 1, 11, tzinfo=UTC)

    def test_a_naive_datetime_is_refused_and_the_error_says_how_to_mend_it(self) -> None:
        with pytest.raises(OptionInvalid, match="no time zone") as refusal:
            parse_when("start", datetime(2030, 1, 1))  # noqa: DTZ001  (the point)
        assert "timezone.utc" in refusal.value.mend

    @pytest.mark.parametrize(
        "value",
        [
            datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
            datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))),  # after 9999 in UTC
            datetime.min.replace(tzinfo=timezone(timedelta(hours=5))),
            "1900-01-01",
            "tomorrow",
            "",
            "10000-01-01",
            1_700_000_000,
            None,
        ],
    )
    def test_dates_before_1970_after_9999_and_nonsense_are_refused(self, value: object) -> None:
        with pytest.raises(OptionInvalid, match="start"):
            parse_when("start", value)

    def test_an_unknown_zone_is_a_configuration_error(self) -> None:
        with pytest.raises(ConfigurationError, match="Atlantis"):
            parse_when("start", "2030-01-01 12:00:00", "Atlantis/Centre")
