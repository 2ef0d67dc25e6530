"""Whatever comes: an answer that is right or says what is wrong, never a fault of ours."""

import contextlib
import json
import math

import orjson
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from api import strict_json
from api.etags import none_match, seen_versions
from api.hosts import HostRule
from api.problems import Problem
from api.strict_json import loads
from tests.api.conftest import WRITER, Running
from tests.api.test_server import statuses

SERVICE = "/api/config/services/stt-worker"
# The server is the same for all examples of a test: it must bear them one after the other.
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)

text = st.text(st.characters(codec="utf-8"), max_size=20)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), text, st.sampled_from(["stt-worker", 1, 2])
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4))
keys = st.sampled_from(["service", "config", "version", "config_epoch", "reason", "confirm", "deadline_s", "verison"])
near_misses = st.fixed_dictionaries(
    {"service": st.just("stt-worker"), "version": st.integers(-1, 3), "config": values},
    optional={"reason": values, "config_epoch": values, "confirm": values, "extra": values},
)
documents = st.one_of(values, st.dictionaries(keys, values), near_misses)


@SHARED
@given(document=documents, method=st.sampled_from(["PUT", "PATCH"]))
async def test_any_json_gets_an_answer(api: Running, document, method):
    content = json.dumps(document).encode()
    answer = await api.client.request(method, SERVICE, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in {200, 400, 409, 422}
    assert answer.headers["x-request-id"]
    if answer.status_code != 200:
        assert isinstance(answer.json()["detail"], str)


commands = st.one_of(
    values,
    st.dictionaries(st.sampled_from(["reason", "dependants", "rolling", "wait_s", "wiat_s"]), values),
)


@SHARED
@given(document=commands, path=st.sampled_from(["/api/services/stt-worker/restart", "/api/services/restart"]))
async def test_any_command_gets_an_answer(api: Running, document, path):
    content = json.dumps(document).encode()
    answer = await api.client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in {200, 400, 422}
    if answer.status_code != 200:
        assert isinstance(answer.json()["detail"], str)


@SHARED
@given(
    pairs=st.lists(
        st.tuples(st.sampled_from(["lines", "level", "line", ""]), text | st.integers().map(str) | st.just("error"))
    )
)
async def test_any_query_gets_an_answer(api: Running, pairs):
    answer = await api.client.get("/api/services/stt-worker/logs", params=pairs)
    assert answer.status_code in {200, 422}


@SHARED
@given(content=st.binary(max_size=200))
@example(b"\xff")
@example(b'{"config": {"\\ud800": 1}}')
async def test_any_bytes_get_an_answer(api: Running, content):
    answer = await api.client.put(SERVICE, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}


header_value = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), max_size=40).map(
    lambda value: value.encode("latin-1")
)


@SHARED
@given(
    headers=st.dictionaries(
        st.sampled_from(
            ["If-None-Match", "If-Match", "X-Request-ID", "X-API-Token", "Content-Type", "Prefer", "Content-Encoding"]
        ),
        header_value,
    ),
    query=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40),
    method=st.sampled_from(["GET", "HEAD", "PUT", "PATCH", "OPTIONS"]),
)
async def test_any_header_fields_get_an_answer(api: Running, headers, query, method):
    given_headers = {"X-API-Token": WRITER, "Content-Type": "application/json", **headers}
    answer = await api.client.request(
        method, SERVICE, params=query, headers=given_headers, content=b"{}" if method[0] == "P" else None
    )
    assert answer.status_code < 500
    assert answer.headers["x-request-id"]


@SHARED
@given(path=st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
async def test_any_path_gets_an_answer(api: Running, path):
    answer = await api.client.get(httpx_path(path))
    assert answer.status_code in {200, 404}


def httpx_path(path: str) -> str:
    return "/" + "".join(f"%{byte:02X}" for byte in path.encode())


pieces = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [
            b"GET /health HTTP/1.1\r\n",
            b"PUT /api/config/services/stt-worker HTTP/1.1\r\n",
            b"Host: localhost\r\n",
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
            b"Connection: close\r\n",
            b"Expect: 100-continue\r\n",
            b"X-API-Token: writer-token-000\r\n",
            b"Content-Type: application/json\r\n",
            b"\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            b"hello",
        ]
    ),
)


@SHARED
@given(parts=st.lists(pieces, max_size=12))
async def test_any_bytes_on_the_wire_are_borne(api: Running, parts):
    # What ends it for sure: no head goes on behind a NUL.
    answer = await api.exchange(b"".join(parts) + b"\x00\r\n\r\n\x00\r\n\r\n" + b"\x00" * 20)
    assert all(status < 500 for status in statuses(answer))
    assert (await api.client.get("/health")).status_code == 200


@given(value=values)
def test_strict_json_reads_what_json_writes(value):
    written = json.dumps(value)
    try:
        read = loads(written.encode(), depth=32)
    except Problem:
        assert not _sound(value)
    else:
        assert _sound(value)
        assert read == value


def _sound(value) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, list):
        return all(_sound(each) for each in value)
    return not isinstance(value, dict) or all(_sound(each) for each in value.values())


@given(written=st.binary(max_size=60) | st.text('{}[]",:0123456789.eE+-truefalsn\\ud8', max_size=40).map(str.encode))
@example(b'{"a":1,"a":1}')
@example(b"1E400")
def test_strict_json_accepts_nothing_that_orjson_refuses(written):
    try:
        read = loads(written, depth=32)
    except Problem:
        return
    assert orjson.loads(written) == read


json_like = st.recursive(
    st.sampled_from(
        [
            *("1", "-0", "-0.0", "1.5e3", "9007199254740993", "1e400", "9223372036854775807", "9223372036854775808"),
            *('"a:b"', '"\\u003a"', '"\\ud800"', '"\\ud83d\\ude00"', "NaN", "true", "null", "0.1", "1e22", "01"),
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda found: f"[{', '.join(found)}]")
        | st.lists(st.tuples(st.sampled_from(['"a"', '"b" ', '"\\u0061"', '"c:"']), inner), max_size=3).map(
            lambda found: "{" + ",".join(f"{key}:{value}" for key, value in found) + "}"
        )
    ),
    max_leaves=6,
)


@given(written=json_like)
@example('{"a":1,"a":"\\u003a"}')
@example('{"a":{"b":1},"a":":"}')
@example("[[[[]]]]")
@example("[[[{}]]]")
def test_strict_json_reads_the_same_by_its_fast_parser_as_by_the_one_that_explains(written):
    def outcome(read):
        try:
            return repr(read())
        except Problem as problem:
            return problem.document("")

    assert outcome(lambda: loads(written.encode(), depth=3)) == outcome(lambda: strict_json._explained(written, 3))


@given(depth=st.integers(1, 40), mixed=st.booleans())
def test_the_depth_is_counted_exactly(depth, mixed):
    opening, closing = (b'{"a":', b"}") if mixed else (b"[", b"]")
    written = opening * depth + b"1" + closing * depth
    try:
        loads(written, depth=20)
    except Problem:
        assert depth > 20
    else:
        assert depth <= 20


@given(field=st.binary(max_size=80) | st.text('W/"abc-019, *', max_size=40).map(str.encode))
def test_entity_tags_are_read_or_refused(field):
    none_match(field, '"abc-1-d"')
    with contextlib.suppress(Problem):
        seen_versions(field)


@given(host=st.binary(max_size=60))
def test_a_host_is_known_or_not(host):
    assert HostRule([]).allows(host) in {True, False}
