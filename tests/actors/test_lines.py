"""Output as lines: bounded, whole, and without secrets however it was cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.lines import LINE_LIMIT, MASK, Lines, Mask

LONG = "s3cret-" + "x" * 40


def cut(chunks: list[bytes], *secrets: str) -> list[bytes]:
    mask = Mask(secrets)
    lines = Lines(lambda: mask)
    given: list[bytes] = []
    for chunk in chunks:
        lines.feed(chunk)
        while (line := lines.take()) is not None:
            given.append(line)
    lines.end()
    while (line := lines.take()) is not None:
        given.append(line)
    return given


@given(st.lists(st.binary(max_size=50)))
def test_lines_are_those_of_the_whole_however_it_comes(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    expected = [line.removesuffix(b"\r") for line in whole.split(b"\n")]
    assert cut(chunks) == (expected[:-1] if whole.endswith(b"\n") or not whole else expected)


@given(st.integers(0, 3 * LINE_LIMIT), st.integers(1, LINE_LIMIT))
def test_a_long_line_is_cut_and_nothing_is_lost(size: int, chunk: int) -> None:
    text = (b"0123456789" * (size // 10 + 1))[:size]
    lines = cut([text[at : at + chunk] for at in range(0, size, chunk)] + [b"\n"])
    assert b"".join(lines) == text
    assert all(len(line) <= LINE_LIMIT for line in lines)


@given(st.integers(0, 3 * LINE_LIMIT), st.integers(1, 5000), st.booleans())
def test_a_secret_is_struck_out_wherever_it_is_cut(at: int, chunk: int, ended: bool) -> None:
    """Over two reads, over two pieces of one line, at the very end."""
    text = b"-" * at + LONG.encode() + b"-" * 100 + (b"\n" if ended else b"")
    lines = cut([text[start : start + chunk] for start in range(0, len(text), chunk)], LONG)
    assert b"".join(lines) == b"-" * at + MASK + b"-" * 100


def test_a_secret_counts_from_the_moment_it_is_known() -> None:
    masks = [Mask(), Mask([LONG])]
    lines = Lines(lambda: masks[-1])
    lines.feed(f"{LONG}\n{LONG}".encode())
    masks.reverse()
    assert lines.take() == LONG.encode()
    masks.reverse()
    lines.end()
    assert lines.take() == MASK


def test_memory_is_bounded() -> None:
    lines = Lines(lambda: Mask([LONG]))
    for _ in range(50):
        lines.feed(b"x" * LINE_LIMIT)
        while lines.take() is not None:
            pass
        assert len(lines._rest) <= LINE_LIMIT + len(LONG)


@pytest.mark.parametrize(
    ("secrets", "text", "clean"),
    [
        (["abcd", "abcdef"], "abcdef abcd", "******** ********"),  # the longer of two that begin alike, first
        (["first line\nsecond line\n"], "second line", "********"),
        (["first line\r\nsecond line"], "-first line-", "-********-"),
        (['quo"te\\ü'], json.dumps('quo"te\\ü', ensure_ascii=False), '"********"'),
        (["123"], "took 123 ms, 1234 times", "took ******** ms, 1234 times"),  # short: only as a word
        (["a.c"], "abc a.c", "abc ********"),
        (["ü€"], "-ü€-", "-********-"),
        ([""], "nothing", "nothing"),
        ([], "nothing", "nothing"),
    ],
)
def test_what_is_struck_out(secrets: list[str], text: str, clean: str) -> None:
    assert Mask(secrets).clean_text(text) == clean


def test_a_mask_grows_and_shows_nothing() -> None:
    mask = Mask(["first-secret"])
    assert mask.adding(["first-secret", ""]) is mask
    both = mask.adding(["second-secret"])
    assert both.clean_text("first-secret second-secret") == "******** ********"
    assert "secret" not in repr(both)


@given(st.text(min_size=1, max_size=30), st.text(max_size=20), st.text(max_size=20))
def test_no_secret_of_four_characters_or_more_survives(secret: str, before: str, after: str) -> None:
    if len(secret) >= 4 and secret not in "********":
        assert secret.encode() not in Mask([secret]).clean(f"{before}{secret}{after}".encode()).replace(MASK, b"\0")


@given(st.lists(st.sampled_from([b"a", b"bb", b"", b"ccc"])), st.booleans(), st.integers(1, 5))
def test_what_is_dropped_is_counted_and_the_last_lines_stay(whole: list[bytes], begun: bool, keep: int) -> None:
    lines = Lines(Mask)
    lines.feed(b"".join(line + b"\n" for line in whole) + (b"begun" if begun else b""))
    assert lines.drop(keep) == max(0, len(whole) - keep)
    lines.end()
    left = []
    while (line := lines.take()) is not None:
        left.append(line)
    assert left == whole[-keep:] + ([b"begun"] if begun else [])
