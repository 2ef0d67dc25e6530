"""Bytes into lines: the same however they were cut, none longer than the limit, what is left out is counted."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.output._lines import Lines, Piece
from actors.output._settings import LINE_LIMIT


def pieces(*chunks: bytes, cut_before: bool = False) -> list[Piece]:
    lines = Lines(cut_before=cut_before)
    given_out = []
    for chunk in chunks:
        lines.feed(chunk)
        while (piece := lines.take()) is not None:
            given_out.append(piece)
    if (begun := lines.end()) is not None:
        given_out.append(begun)
    return given_out


def cut_at(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


texts = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from([b"\n", b"\r\n", b"\r", "é€🙂".encode()]),
        st.integers(LINE_LIMIT - 3, LINE_LIMIT + 3).map(lambda size: b"x" * size),
        st.integers(LINE_LIMIT // 4 - 2, LINE_LIMIT // 4 + 2).map(lambda size: "🙂".encode() * size),
    ),
    max_size=8,
).map(b"".join)


@given(texts, st.lists(st.integers(0, 3 * LINE_LIMIT), max_size=8), st.booleans())
def test_the_pieces_are_those_of_the_whole_however_it_comes(data: bytes, cuts: list[int], cut_before: bool) -> None:
    whole = pieces(data, cut_before=cut_before)
    assert pieces(*cut_at(data, cuts), cut_before=cut_before) == whole
    assert all(len(piece.data) <= LINE_LIMIT for piece in whole)
    # Every byte is in a piece, was counted, or ended a line.
    ends = data.count(b"\n") + data.count(b"\r\n")
    kept = sum(len(piece.data) + piece.left_out for piece in whole)
    assert len(data) - ends <= kept <= len(data) - data.count(b"\n")


def test_lines_and_what_has_no_end() -> None:
    assert pieces(b"a\n\nb\r\nc") == [Piece(b"a"), Piece(b""), Piece(b"b"), Piece(b"c", cut_after=True)]
    assert pieces(b"") == pieces() == []


def test_a_long_line_keeps_its_beginning_and_the_rest_is_counted() -> None:
    assert pieces(b"x" * (LINE_LIMIT + 5) + b"\nnext\n") == [
        Piece(b"x" * LINE_LIMIT, cut_after=True),
        Piece(b"", left_out=5),
        Piece(b"next"),
    ]
    assert pieces(b"x" * LINE_LIMIT + b"\n") == [Piece(b"x" * LINE_LIMIT)]


@pytest.mark.parametrize("character", ["é", "€", "🙂"])
@pytest.mark.parametrize("before", range(5))
def test_a_character_is_not_torn_by_the_limit(character: str, before: int) -> None:
    text = "x" * before + character * LINE_LIMIT
    first = pieces(text.encode())[0].data
    assert text.startswith(first.decode())
    assert len(first) > LINE_LIMIT - 4


def test_ten_megabytes_without_an_end_are_not_held() -> None:
    lines = Lines()
    taken = []
    for _ in range(160):
        lines.feed(b"x" * 65536)
        while (piece := lines.take()) is not None:
            taken.append(piece)
        assert len(lines._rest) + len(lines._chunk) <= LINE_LIMIT
    assert len(taken) == 1
    assert lines.end() == Piece(b"", left_out=160 * 65536 - LINE_LIMIT)


def test_after_a_gap_the_rest_of_a_line_is_left_out() -> None:
    lines = Lines()
    lines.feed(b"begun")
    assert lines.take() is None
    assert lines.end() == Piece(b"begun", cut_after=True)
    lines.skip()
    lines.feed(b"its end\nwhole\n")
    assert lines.take() == Piece(b"", left_out=7)
    assert lines.take() == Piece(b"whole")
    lines.skip()
    lines.feed(b"\nwhole\n")
    assert lines.take() == Piece(b"whole")
    assert lines.end() is None
