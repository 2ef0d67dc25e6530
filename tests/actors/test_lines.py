"""Output as lines: bounded, and whole however it was cut."""

from hypothesis import given
from hypothesis import strategies as st

from actors.lines import LINE_LIMIT, Lines


def cut(chunks: list[bytes]) -> list[bytes]:
    lines = Lines()
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


def test_memory_is_bounded() -> None:
    lines = Lines()
    for _ in range(50):
        lines.feed(b"x" * LINE_LIMIT)
        while lines.take() is not None:
            pass
        assert len(lines._rest) <= LINE_LIMIT


@given(st.lists(st.sampled_from([b"a", b"bb", b"", b"ccc"])), st.booleans(), st.integers(1, 5))
def test_what_is_dropped_is_counted_and_the_last_lines_stay(whole: list[bytes], begun: bool, keep: int) -> None:
    lines = Lines()
    lines.feed(b"".join(line + b"\n" for line in whole) + (b"begun" if begun else b""))
    assert lines.drop(keep) == max(0, len(whole) - keep)
    lines.end()
    left = []
    while (line := lines.take()) is not None:
        left.append(line)
    assert left == whole[-keep:] + ([b"begun"] if begun else [])
