import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor import _dotenv

KEYS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))


def values(text: str) -> dict[str, str]:
    entries, mistakes = _dotenv.parse(text.encode())
    assert mistakes == []
    return {entry.key: entry.value for entry in entries}


def mistakes(data: str | bytes) -> list[tuple[int, str]]:
    return [tuple(each) for each in _dotenv.parse(data if isinstance(data, bytes) else data.encode())[1]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1", {"A": "1"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("\ufeffA=1\n", {"A": "1"}),
        ("  A = b c  \n", {"A": "b c"}),
        ("export A=1\nexport\tB=2", {"A": "1", "B": "2"}),
        ("export=1", {"export": "1"}),
        ("# A=1\n\n   # B=2", {}),
        ("A=b # comment", {"A": "b"}),
        ("A=b#no comment", {"A": "b#no comment"}),
        ("A=#no comment", {"A": "#no comment"}),
        ("A= # comment", {"A": ""}),
        ("A=", {"A": ""}),
        ("A=a=b", {"A": "a=b"}),
        ("A=it's", {"A": "it's"}),
        ("A=$HOME ${B} `c`", {"A": "$HOME ${B} `c`"}),
        (r"A='$HOME \n \\'  # comment", {"A": r"$HOME \n \\"}),
        (r'A="a\nb\t\\ \" \$ \`"', {"A": 'a\nb\t\\ " $ `'}),
        ('A="x\n  y  \n# z"\nB=1', {"A": "x\n  y  \n# z", "B": "1"}),
        ("A='x\ny'\nB=1", {"A": "x\ny", "B": "1"}),
        ("A=\nA=1", {"A": "1"}),
    ],
)
def test_reads(text, expected):
    assert values(text) == expected


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        ("A=1\nB", 2, "no `=` in this line; write KEY=value"),
        ("=1", 1, "no variable name"),
        ("MY-KEY=1", 1, "no variable name"),
        ("1A=1", 1, "no variable name"),
        ('A="open\nB=1', 1, "never closed"),
        ("A='open", 1, "never closed"),
        ('A="a"b', 1, "after the closing quote"),
        (r'A="\d+"', 1, r"\d means nothing inside double quotes; write \\"),
        ("A=1\n\nA=2", 3, "A is set in line 1 already"),
        ("A=x\0y", 1, "NUL"),
        (b"A=1\nB=\xff\n", 2, "not UTF-8"),
        (b"A=" + b"x" * _dotenv.MAX_BYTES, 1, "larger than 256 KiB"),
    ],
)
def test_names_line_mistake_and_mending(data, line, words):
    [(found_line, what)] = mistakes(data)
    assert found_line == line
    assert words in what
    assert ";" in what or "already" in what


def test_tells_all_mistakes_at_once_and_reads_the_rest():
    entries, wrong = _dotenv.parse(b"oops\nA=1\nB='x\nC=2\n1=1\n")
    assert [each.line for each in wrong] == [1, 3, 5]
    assert [(each.key, each.line) for each in entries] == [("A", 2), ("C", 4)]


def test_bounds_the_number_of_mistakes():
    wrong = mistakes("oops\n" * 1000)
    assert len(wrong) == _dotenv.MAX_MISTAKES + 1
    assert "980 more" in wrong[-1][1]


def test_no_mistake_repeats_a_value():
    for text in ("A='hunter2", 'A="hunter2"x', 'A="hunter2\\q"', "hunter2", "A=hunter2\nA=hunter3", "-=hunter2"):
        assert "hunter" not in str(mistakes(text))


def test_long_runs_do_not_take_long():
    # Each of these took minutes with a pattern that backtracks.
    for text in ("A=" + " " * 250_000 + "x", "A=" + "\t " * 120_000 + "x", "A='\n" * 60_000, 'A="\\"\n' * 40_000):
        _dotenv.parse(text.encode())


@settings(deadline=None)
@given(st.binary() | st.text(st.characters(exclude_categories=("Cs",))).map(str.encode))
def test_any_bytes_give_entries_and_mistakes(data):
    entries, wrong = _dotenv.parse(data)
    lines = data.count(b"\n") + 1
    assert all(1 <= each.line <= lines for each in [*entries, *wrong])


@settings(deadline=None)
@given(st.text("AB=\"'\\#\n \tnexport$\r"))
def test_any_text_of_the_grammar_gives_entries_and_mistakes(text):
    _dotenv.parse(text.encode())


@settings(deadline=None)
@given(st.lists(st.tuples(KEYS, VALUES), unique_by=lambda each: each[0]))
def test_reads_back_what_it_writes(pairs):
    text = "".join(f"{_dotenv.render(key, value)}\n" for key, value in pairs)
    assert values(text) == dict(pairs)


@settings(deadline=None)
@given(st.lists(VALUES, max_size=5))
def test_each_assignment_is_one_line(contents):
    for value in contents:
        assert "\n" not in _dotenv.render("A", value)


@pytest.mark.parametrize(
    "value", ["plain", "two words", "it's", "it's $HOME `id` \\ \"", "$HOME `id` \\", "ümläut", 'a"b', "a\\b'c"]
)
def test_a_shell_reads_the_same(tmp_path: Path, value):
    shell = shutil.which("sh")
    assert shell
    file = tmp_path / "env"
    file.write_text(_dotenv.render("A", value) + "\n")
    script = f'. {file}; printf %s "$A"'
    assert subprocess.run([shell, "-c", script], capture_output=True, check=True, timeout=30).stdout.decode() == value


def test_refuses_to_write_what_cannot_be_read():
    with pytest.raises(ValueError, match="name"):
        _dotenv.render("A B", "x")
    with pytest.raises(ValueError, match="NUL"):
        _dotenv.render("A", "\0")
