"""Durations and sizes of a manifest."""

from fractions import Fraction
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.manifest._units import BYTES, SECONDS, TIB, Duration, Size, in_bytes, in_seconds

DURATION = Duration(0, 86400)
SIZE = Size(0, 2**20 * TIB)


def refusal(marker: Duration | Size, value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        marked(marker, value)
    (error,) = caught.value.errors()
    return str(error["ctx"]["sentence"])


def marked(marker: Duration | Size, value: object) -> Any:
    return TypeAdapter(Annotated[float, marker]).validate_python(value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(0, 0), (90, 90), (1.5, 1.5), ("500 ms", 0.5), ("1.5s", 1.5), ("2 min", 120), ("0.25 h", 900), ("007 s", 7)],
)
def test_a_duration(value: object, seconds: float) -> None:
    assert marked(DURATION, value) == seconds


@pytest.mark.parametrize(
    ("value", "size"),
    [(0, 0), (4096, 4096), ("1 B", 1), ("64 MiB", 2**26), ("1.5GiB", 3 * 2**29), ("0.1 KiB", 102), ("1 TiB", 2**40)],
)
def test_a_size(value: object, size: int) -> None:
    assert marked(SIZE, value) == size


@pytest.mark.parametrize(
    ("marker", "value", "sentence"),
    [
        (DURATION, "5 sec", 'unknown unit "sec"; the units are ms, s, min or h; did you mean "5 s"?'),
        (DURATION, "1.5 m", 'unknown unit "m"; the units are ms, s, min or h; did you mean "1.5 min"?'),
        (DURATION, "5 MiB", 'unknown unit "MiB"; the units are ms, s, min or h'),
        (DURATION, "5", "has no unit; the units are ms, s, min or h"),
        (DURATION, "", "must be 0 to 86400 seconds"),
        (DURATION, "1 min 30 s", "must be 0 to 86400 seconds"),
        (DURATION, "-1 s", "must be 0 to 86400 seconds"),
        (DURATION, "25 h", "must be 0 to 86400 seconds"),
        (DURATION, "1e3 s", "must be 0 to 86400 seconds"),
        (DURATION, -1, "must be 0 to 86400 seconds"),
        (DURATION, True, "must be 0 to 86400 seconds"),
        (DURATION, float("nan"), "must be 0 to 86400 seconds"),
        (DURATION, float("inf"), "must be 0 to 86400 seconds"),
        (DURATION, ["1 s"], "must be 0 to 86400 seconds"),
        (SIZE, "64 MB", 'unknown unit "MB"; the units are B, KiB, MiB, GiB or TiB; did you mean "64 MiB"?'),
        (SIZE, "64 mib", 'did you mean "64 MiB"?'),
        (SIZE, 1.0, "must be 0 B to 1048576 TiB"),
        (SIZE, "2000000 TiB", "must be 0 B to 1048576 TiB"),
        (SIZE, 10**400, "must be 0 B to 1048576 TiB"),
    ],
)
def test_what_is_none_is_refused_with_a_hint(marker: Duration | Size, value: object, sentence: str) -> None:
    assert sentence in refusal(marker, value)


@given(st.integers(0, 10**6), st.integers(0, 999), st.sampled_from([*SECONDS]), st.sampled_from(["", " "]))
def test_every_number_with_a_unit_is_read_exactly(whole: int, part: int, unit: str, space: str) -> None:
    exact = Fraction(f"{whole}.{part:03d}") * SECONDS[unit]
    text = f"{whole}.{part:03d}{space}{unit}"
    if exact <= 86400:
        assert marked(DURATION, text) == float(exact)
    else:
        assert "must be" in refusal(DURATION, text)


@given(st.integers(0, SIZE.high))
def test_a_size_is_written_so_that_it_is_read_again(size: int) -> None:
    assert marked(SIZE, in_bytes(size)) == size


@given(st.integers(0, 86_400_000))
def test_a_duration_is_written_so_that_it_is_read_again(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert marked(DURATION, in_seconds(seconds)) == seconds


@given(
    st.text() | st.text(alphabet="0123456789. msinhKMGTB", max_size=12) | st.floats() | st.integers() | st.booleans()
)
def test_whatever_comes_is_within_the_bounds_or_refused_in_our_words(value: object) -> None:
    for marker in (Duration(0.1, 3600), Size(1024, TIB)):
        try:
            read = marked(marker, value)
        except ValidationError as error:
            (detail,) = error.errors()
            assert detail["type"] == "manifest"
            assert len(detail["ctx"]["sentence"]) < 200
        else:
            assert marker.low <= read <= marker.high


def test_the_units_are_told_apart_by_their_spelling() -> None:
    assert not SECONDS.keys() & BYTES.keys()
