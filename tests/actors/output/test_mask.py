"""Secrets are struck out in every form in which programs print them, and nothing shows them."""

import base64
import json
import re
import urllib.parse

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.output import MASK, Mask

SECRET = 'pa/ss "wörd"\\+1'


@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        json.dumps(SECRET).replace("/", "\\/"),
        json.dumps({"body": json.dumps({"password": SECRET})}),
        repr(SECRET),
        repr(SECRET.encode()),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        urllib.parse.quote(SECRET),
        urllib.parse.quote(SECRET, safe=""),
        urllib.parse.quote_plus(SECRET),
        re.sub("%..", lambda match: match[0].lower(), urllib.parse.quote(SECRET, safe="")),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
    ],
)
def test_every_form_of_a_secret(shown: str) -> None:
    clean = Mask([SECRET]).clean(f"<{shown}>")
    assert MASK in clean
    assert shown not in clean
    assert "w" not in clean.replace(MASK, "").removesuffix(">")[1:].replace('{"body": ', "").replace("password", "")


@pytest.mark.parametrize("before", ["", "u:", "us:", "use:"])
@pytest.mark.parametrize("after", ["", "x", "xy", "xyz"])
def test_a_secret_inside_a_longer_base64_text(before: str, after: str) -> None:
    text = base64.b64encode(f"{before}correct horse battery{after}".encode()).decode()
    left = Mask(["correct horse battery"]).clean(f"Authorization: Basic {text}").removeprefix("Authorization: Basic ")
    assert MASK in left
    # What is left are the neighbours, and the few digits that they share with the secret.
    assert len(left.replace(MASK, "")) <= 16


@pytest.mark.parametrize(
    ("secrets", "text", "clean"),
    [
        (["abcd", "abcdef"], "abcdef abcd", "******** ********"),  # the longer of two that begin alike, first
        (["first line\nsecond line\n"], "second line", "********"),
        (["-----BEGIN KEY-----\nMIIabc\n-----END KEY-----"], "-----BEGIN KEY-----", "-----BEGIN KEY-----"),
        (["-----BEGIN KEY-----\nMIIabc\n-----END KEY-----"], "MIIabc", "********"),
        (["123"], "took 123 ms, 1234 times", "took ******** ms, 1234 times"),  # short: only as a word
        (["a.c"], "abc a.c", "abc ********"),
        (["tab\x07bed"], "tab\\x07bed", "********"),  # as it looks after control characters were made visible
        (["", "*", "*****"], "nothing *", "nothing *"),
        ([], "nothing", "nothing"),
    ],
)
def test_what_is_struck_out(secrets: list[str], text: str, clean: str) -> None:
    assert Mask(secrets).clean(text) == clean


def test_a_mask_grows_and_shows_nothing() -> None:
    mask = Mask(["first-secret"])
    assert mask.adding(["first-secret", ""]) is mask
    both = mask.adding(["second-secret"])
    assert both.clean("first-secret second-secret") == "******** ********"
    assert "secret" not in repr(both)


@given(st.integers(1, 20), st.booleans())
def test_a_part_of_a_secret_at_a_cut_goes_too(size: int, after: bool) -> None:
    secret = "s3cret-0123456789-abc"
    mask = Mask([secret])
    if after:
        clean = mask.clean_part("text " + secret[:size], cut_after=True)
        assert clean == "text " + (MASK if size >= 3 else secret[:size])
    else:
        clean = mask.clean_part(secret[-size:] + " text", cut_before=True)
        assert clean == (MASK if size >= 3 else secret[-size:]) + " text"


def test_a_cut_does_not_search_for_long() -> None:
    """The worst that a worker can print about a key of several kilobytes: its beginning, over and over."""
    key = "ab" * 4000 + "!"
    assert Mask([key]).clean_part("ab" * 8000, cut_after=True).endswith(MASK)


secrets_ = st.text(min_size=4, max_size=30).filter(lambda text: text.strip("*"))


@given(secrets_, st.text(max_size=20), st.text(max_size=20))
def test_no_secret_survives_in_a_text(secret: str, before: str, after: str) -> None:
    assert secret not in Mask([secret]).clean(f"{before}{secret}{after}").replace(MASK, "\0" * 5)


@given(secrets_, st.text(max_size=20))
def test_the_fast_look_misses_none(secret: str, before: str) -> None:
    secret = secret.encode("utf-8", "replace").decode()
    before = before.encode("utf-8", "replace").decode()
    assert Mask([secret]).may_be_in(orjson.dumps([before + secret]))


@given(st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=3))
def test_no_form_is_shorter_than_what_it_is_a_form_of(values: list[str]) -> None:
    """By that a text is known to hold none without looking."""
    mask = Mask(values)
    assert all(len(form) >= mask._shortest for form in mask._forms)
