"""PUT and PATCH: what reaches the actor, and how each of its answers is told."""

import asyncio

import orjson
import pytest

from actors import OutcomeUnknown, Rejected
from api.models import ChangeAnswer, ProblemDetails
from schemas.changes import OverriddenByEnvironment, ReadOnly, StaleVersion
from schemas.problems import ConfigInvalid, FieldError
from tests.api.conftest import WRITER, Running
from tests.api.fake_services import EPOCH
from tests.support import eventually

SERVICE = "/api/config/services/stt-worker"


OTHER_EPOCH = "ffffffff-ffff-4fff-8fff-ffffffffffff"


def body(**changes):
    return {"service": "stt-worker", "config": {"log_level": "debug"}, "version": 1, **changes}


async def refused(api: Running, content, *, method="PUT", status, code, headers=None) -> ProblemDetails:
    """The problem that `content` (JSON, or bytes as they are) gets; nothing has changed then."""
    raw = content if isinstance(content, bytes) else orjson.dumps(content)
    before = dict(api.services.versions)
    answer = await api.client.request(
        method, SERVICE, content=raw, headers={"Content-Type": "application/json", **(headers or {})}
    )
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = ProblemDetails.model_validate_json(answer.content)
    assert problem.type.rpartition(":")[2] == code, answer.text
    assert problem.status == status
    assert problem.request_id == answer.headers["x-request-id"]
    assert api.services.versions == before
    return problem


async def test_a_put_is_one_ask_with_everything_in_it(api: Running):
    answer = await api.client.put(
        SERVICE, json=body(reason="quiet voices", config_epoch=EPOCH), headers={"X-Request-ID": "mine-1"}
    )
    assert answer.status_code == 200
    accepted = ChangeAnswer.model_validate_json(answer.content)
    assert (accepted.success, accepted.version, accepted.config_epoch, accepted.rollout) == (True, 2, EPOCH, None)
    assert answer.headers["cache-control"] == "no-store"
    (change,) = api.services.changes
    assert (change.service, dict(change.config), change.merge) == ("stt-worker", {"log_level": "debug"}, False)
    assert (change.expected_version, change.expected_epoch) == (1, EPOCH)
    assert (change.changed_by, change.origin, change.request_id) == ("write", "rest", "mine-1")
    assert (change.reason, change.address) == ("quiet voices", "127.0.0.1")


@pytest.mark.parametrize("media_type", ["application/json", "application/merge-patch+json; charset=UTF-8"])
async def test_a_patch_is_a_merge(api: Running, media_type):
    content = orjson.dumps(body(config={"vad_threshold": None}))
    answer = await api.client.patch(SERVICE, content=content, headers={"Content-Type": media_type})
    assert answer.status_code == 200
    (change,) = api.services.changes
    assert change.merge
    assert change.config == {"vad_threshold": None}
    assert (change.expected_epoch, change.reason) == (None, None)


async def test_nothing_different_keeps_the_version(api: Running):
    answer = await api.client.put(SERVICE, json=body(config={}))
    assert (answer.status_code, answer.json()["version"]) == (200, 1)


async def test_of_writers_with_the_same_version_one_wins(api: Running):
    answers = await asyncio.gather(
        *(api.client.put(SERVICE, json=body(config={"sample_rate": rate})) for rate in range(8))
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7


async def test_a_stale_version_tells_what_is_current_and_who_made_it(api: Running):
    first = await api.client.put(SERVICE, json=body(), headers={"X-Request-ID": "winner"})
    assert first.status_code == 200
    problem = await refused(api, body(), status=409, code="stale-version")
    assert problem.detail == "Version mismatch: expected 1, current is 2"
    assert problem.current is not None
    assert problem.current.model_dump() == {"version": 2, "config_epoch": EPOCH, "request_id": "winner"}


async def test_a_version_that_no_request_made_has_no_request_id(api: Running):
    api.services.failure = StaleVersion(2, 1, EPOCH, "")
    problem = await refused(api, body(version=2), status=409, code="stale-version")
    assert problem.current is not None
    assert problem.current.model_dump() == {"version": 1, "config_epoch": EPOCH, "request_id": None}


async def test_another_epoch_is_stale(api: Running):
    problem = await refused(api, body(config_epoch=OTHER_EPOCH), status=409, code="stale-version")
    assert EPOCH in problem.detail


class TestIfMatch:
    async def test_stands_for_the_version(self, api: Running):
        etag = (await api.client.get(SERVICE)).headers["etag"]
        content = {key: value for key, value in body().items() if key != "version"}
        assert (await api.client.put(SERVICE, json=content, headers={"If-Match": etag})).status_code == 200
        (change,) = api.services.changes
        assert (change.expected_version, change.expected_epoch) == (1, EPOCH)
        await refused(api, content, status=409, code="stale-version", headers={"If-Match": etag})

    async def test_that_of_the_short_body_counts_too(self, api: Running):
        etag = (await api.client.get(f"{SERVICE}?include_fields=false")).headers["etag"]
        assert (await api.client.put(SERVICE, json=body(), headers={"If-Match": etag})).status_code == 200

    async def test_any_of_a_list_may_match(self, api: Running):
        etag = (await api.client.get(SERVICE)).headers["etag"]
        field = f'"f0000000-9-x", "other", {etag}'
        assert (await api.client.put(SERVICE, json=body(), headers={"If-Match": field})).status_code == 200

    async def test_another_epoch_goes_to_the_actor_as_it_is(self, api: Running):
        content = body(version=None)
        await refused(api, content, status=409, code="stale-version", headers={"If-Match": '"f0000000-1-x"'})
        assert api.services.changes[-1].expected_epoch == "f0000000"

    @pytest.mark.parametrize("changes", [{"version": 2}, {"config_epoch": OTHER_EPOCH}])
    async def test_must_agree_with_the_body(self, api: Running, changes):
        etag = (await api.client.get(SERVICE)).headers["etag"]
        problem = await refused(api, body(**changes), status=422, code="invalid", headers={"If-Match": etag})
        assert problem.errors is not None
        assert (problem.errors[0].field, problem.errors[0].type) == (next(iter(changes)), "conflict")
        assert api.services.changes == []

    @pytest.mark.parametrize("field", ["1", '"open', "a, b", '"a" "b"'])
    async def test_that_is_no_list_of_entity_tags_is_400(self, api: Running, field):
        await refused(api, body(), status=400, code="malformed", headers={"If-Match": field})

    @pytest.mark.parametrize("field", ['"abc"', 'W/"0b9d4c1e-1-x"', '"0b9d4c1e--x"', '"0b9d4c1e-1-"'])
    async def test_that_can_match_nothing_is_412(self, api: Running, field):
        await refused(api, body(), status=412, code="precondition-failed", headers={"If-Match": field})

    async def test_any_needs_a_version_in_the_body(self, api: Running):
        problem = await refused(api, body(version=None), status=422, code="invalid", headers={"If-Match": "*"})
        assert problem.errors is not None
        assert problem.errors[0].field == "version"
        assert (await api.client.put(SERVICE, json=body(), headers={"If-Match": "*"})).status_code == 200

    @pytest.mark.parametrize("field", ["*", "{etag}"])
    async def test_if_none_match_that_matches_is_412(self, api: Running, field):
        field = field.format(etag=(await api.client.get(SERVICE)).headers["etag"])
        await refused(api, body(), status=412, code="precondition-failed", headers={"If-None-Match": field})


class TestTheActorsErrors:
    async def test_overridden_by_the_environment(self, api: Running):
        api.services.failure = OverriddenByEnvironment(("log_level",))
        problem = await refused(api, body(), status=409, code="overridden")
        assert "LOG_LEVEL" in problem.detail
        assert problem.errors is not None
        assert problem.errors[0].field == "log_level"

    async def test_read_only(self, api: Running):
        api.services.failure = ReadOnly("The disk is full.", retry_after=17)
        answer = await api.client.put(SERVICE, json=body())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "17")
        assert answer.json()["detail"] == "The disk is full."

    async def test_rejected(self, api: Running):
        api.services.failure = Rejected("the mailbox of stt-worker is full")
        answer = await api.client.put(SERVICE, json=body())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "Nothing was changed" in answer.json()["detail"]

    async def test_outcome_unknown_tells_how_to_find_out(self, api: Running):
        api.services.failure = OutcomeUnknown("no answer within 5 s")
        problem = await refused(api, body(), status=504, code="outcome-unknown", headers={"X-Request-ID": "lost-1"})
        assert '`current.request_id` is "lost-1"' in problem.detail

    async def test_the_way_to_find_out_works(self, api: Running):
        api.services.gate.clear()
        lost = asyncio.create_task(api.client.put(SERVICE, json=body(), headers={"X-Request-ID": "lost-2"}))
        async with asyncio.timeout(30):
            await api.services.entered.wait()
        lost.cancel()
        await asyncio.wait([lost])
        api.services.gate.set()
        # A client that has gone takes nothing back.
        await eventually(lambda: api.services.versions["stt-worker"] == 2)
        problem = await refused(api, body(), status=409, code="stale-version")
        assert problem.current is not None
        assert problem.current.request_id == "lost-2"

    async def test_invalid_values_name_every_field(self, api: Running):
        errors = [FieldError("a", "It is wrong.", "out_of_range"), FieldError("b", "It is, too.", "pattern")]
        api.services.failure = ConfigInvalid(errors)
        problem = await refused(api, body(), status=422, code="invalid")
        assert problem.detail == "a: It is wrong. (1 more in `errors`)"
        assert problem.errors is not None
        assert [each.model_dump() for each in problem.errors] == [
            {"field": "a", "message": "It is wrong.", "type": "out_of_range"},
            {"field": "b", "message": "It is, too.", "type": "pattern"},
        ]

    async def test_an_unknown_setting_comes_with_a_suggestion(self, api: Running):
        problem = await refused(api, body(config={"vad_treshold": 1}), status=422, code="invalid")
        assert problem.detail == 'unknown key "vad_treshold"; did you mean "vad_threshold"?'

    async def test_what_nobody_foresaw_is_500_without_a_word_about_it(self, api: Running):
        api.services.failure = ZeroDivisionError("the secret is hunter2")
        problem = await refused(api, body(), status=500, code="internal")
        assert "hunter2" not in problem.detail
        assert problem.request_id in problem.detail


class TestTheBody:
    @pytest.mark.parametrize(
        ("changes", "field", "kind"),
        [
            ({"version": None}, "version", "missing"),
            ({"version": "1"}, "version", "wrong_type"),
            ({"version": 1.5}, "version", "wrong_type"),
            ({"version": True}, "version", "wrong_type"),
            ({"version": 0}, "version", "out_of_range"),
            ({"config": []}, "config", "wrong_type"),
            ({"config": None}, "config", "wrong_type"),
            ({"service": 7}, "service", "wrong_type"),
            ({"reason": ["x"]}, "reason", "wrong_type"),
            ({"reason": "x" * 1001}, "reason", "too_long"),
            ({"config_epoch": 5}, "config_epoch", "wrong_type"),
            ({"config_epoch": "nonsense"}, "config_epoch", "pattern"),
            ({"config_epoch": ""}, "config_epoch", "pattern"),
            ({"config_epoch": EPOCH[:8]}, "config_epoch", "pattern"),
            ({"config_epoch": EPOCH + "\n"}, "config_epoch", "pattern"),
            ({"confirm": "manual"}, "confirm", "invalid"),
            ({"deadline_s": 60}, "deadline_s", "invalid"),
        ],
    )
    async def test_a_wrong_member_is_named(self, api: Running, changes, field, kind):
        problem = await refused(api, body(**changes), status=422, code="invalid")
        assert problem.errors is not None
        assert [(each.field, each.type) for each in problem.errors] == [(field, kind)]
        assert problem.detail.startswith(field) or f'"{field}"' in problem.detail or kind == "missing"

    @pytest.mark.parametrize("missing", ["service", "config", "version"])
    async def test_a_missing_member_is_named(self, api: Running, missing):
        content = {key: value for key, value in body().items() if key != missing}
        problem = await refused(api, content, status=422, code="invalid")
        assert problem.errors is not None
        assert [(each.field, each.type) for each in problem.errors] == [(missing, "missing")]

    async def test_an_unknown_member_comes_with_a_suggestion(self, api: Running):
        problem = await refused(api, body(verison=1, konfig={}), status=422, code="invalid")
        assert problem.errors is not None
        messages = [each.message for each in problem.errors]
        assert messages == [
            'unknown key "verison"; did you mean "version"?',
            'unknown key "konfig"; did you mean "config"?',
        ]

    async def test_every_mistake_is_told_at_once(self, api: Running):
        problem = await refused(api, {"config": 1, "version": "x", "nonsense": 1}, status=422, code="invalid")
        assert problem.errors is not None
        assert {each.field for each in problem.errors} == {"nonsense", "service", "config", "version"}

    async def test_members_that_are_null_count_as_left_out(self, api: Running):
        content = body(confirm=None, deadline_s=None, reason=None, config_epoch=None)
        assert (await api.client.put(SERVICE, json=content)).status_code == 200

    async def test_another_service_than_in_the_path(self, api: Running):
        problem = await refused(api, body(service="tts-worker"), status=400, code="service-mismatch")
        assert "stt-worker" in problem.detail
        assert "tts-worker" in problem.detail

    async def test_an_unknown_service_is_told_before_the_body_is_read(self, api: Running):
        answer = await api.client.put("/api/config/services/nobody", content=b"{")
        assert answer.status_code == 404

    @pytest.mark.parametrize("content", [b"[]", b"1", b'"x"', b"null"])
    async def test_that_is_no_object(self, api: Running, content):
        await refused(api, content, status=422, code="invalid")

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "line 1, column 1"),
            (b'{"service": "stt-worker",\n "config" 1}', "line 2, column 11"),
            (b'{"config": {"a": 1}', "line 1"),
            (b'{"config": {}} x', "column 16"),
            (b'{"config": "\xff"}', "byte 13"),
            (b"[" * 500_000, "brackets"),
            (b"\xff\xfe{\x00}\x00", "UTF-8"),
            (b"\xef\xbb\xbf{}", "line 1, column 1"),
            (b"[" * 90_000, "The body: It nests deeper than 32"),
            (b'{"a":' * 90_000, "a: It nests deeper than 32"),
            (b"NaN", "The body: NaN is not a JSON number; numbers must be finite."),
            (b"[" + b"1," * 200_000 + b"1]", "commas"),
        ],
    )
    async def test_that_is_not_strict_json_is_400_and_says_where(self, api: Running, content, words):
        problem = await refused(api, content, status=400, code="malformed")
        assert words in problem.detail
        assert len(problem.detail) < 250

    @pytest.mark.parametrize(
        ("content", "detail", "field", "type_"),
        [
            (
                b'{"config": {"a": NaN}}',
                "config.a: NaN is not a JSON number; numbers must be finite.",
                "a",
                "wrong_type",
            ),
            (b'{"config": {"a": -Infinity}}', "config.a: -Infinity is not a JSON number", "a", "wrong_type"),
            (b'{"config": {"a": 1e999}}', "config.a: The number is too large.", "a", "out_of_range"),
            (b'{"config": {"b": 1, "a": [1, {"c": -1e999}]}}', "config.a[1].c: The number", "a", "out_of_range"),
            (b'{"version": NaN}', "version: NaN is not", "version", "wrong_type"),
            (b'{"config": {"a": 1, "a": 2}}', "config.a: It stands twice in one object", "a", "invalid"),
            (b'{"version": 1, "version": 1}', "version: It stands twice in one object", "version", "invalid"),
            (b'{"config": {"a": 9223372036854775808}}', "config.a: The number does not fit", "a", "out_of_range"),
            (b'{"config": {"a": ' + b"9" * 5000 + b"}}", "config.a: The number does not fit", "a", "out_of_range"),
            (b'{"config": {"a": "\\ud800"}}', "config.a: It holds half of a surrogate pair", "a", "format"),
            (b'{"config": {"\\udc00": 1}}', "config.?: The key holds half of a surrogate pair", "?", "format"),
            (b'{"config": ' + b"[" * 32 + b"]" * 32 + b"}", "config: It nests deeper", "config", "invalid"),
            (
                b'{"reason": "]},\\"", "config": {"b": [1, {}], "a": ' + b"[" * 40_000 + b"]" * 40_000 + b"}}",
                "config.a: It nests deeper than 32 arrays and objects.",
                "a",
                "invalid",
            ),
        ],
    )
    async def test_that_holds_what_is_no_json_is_400_and_names_the_field(
        self, api: Running, content, detail, field, type_
    ):
        problem = await refused(api, content, status=400, code="malformed")
        assert detail in problem.detail
        assert [(error.field, error.type) for error in problem.errors] == [(field, type_)]
        assert problem.errors[0].message in problem.detail

    async def test_names_everything_that_is_no_json_at_once(self, api: Running):
        content = (
            b'{"version": 1e999, "config": {"a": NaN, "pin": 12345678901234567890123, "b": [' + b"NaN," * 90 + b"1]}}"
        )
        problem = await refused(api, content, status=400, code="malformed")
        assert problem.detail == "version: The number is too large. (19 more in `errors`)"
        assert [error.field for error in problem.errors][:4] == ["version", "a", "pin", "b"]
        # It may be a secret that should have been a text.
        assert "123456" not in problem.model_dump_json()

    async def test_may_nest_as_deep_as_the_limit(self, api: Running):
        content = b'{"service": "stt-worker", "version": 1, "config": {"x": %b}}' % (b"[" * 30 + b"]" * 30)
        problem = await refused(api, content, status=422, code="invalid")
        assert 'unknown key "x"' in problem.detail

    @pytest.mark.parametrize(
        "headers",
        [
            {"Content-Type": "text/plain"},
            {"Content-Type": "application/x-www-form-urlencoded"},
            {"Content-Type": "application/merge-patch+json"},
            {"Content-Type": "application/json; charset=utf-16"},
            {"Content-Encoding": "gzip"},
        ],
    )
    async def test_of_another_type_is_415(self, api: Running, headers):
        await refused(api, body(), status=415, code="unsupported-type", headers=headers)

    async def test_without_a_type_is_415(self, api: Running):
        answer = await api.client.put(SERVICE, content=orjson.dumps(body()))
        assert answer.status_code == 415

    async def test_prefer_is_ignored(self, api: Running):
        assert (await api.client.put(SERVICE, json=body(), headers={"Prefer": "wait=5"})).status_code == 200

    async def test_no_error_repeats_a_value(self, api: Running):
        content = {"service": ["hunter2"], "config": "hunter2", "version": "hunter2", "reason": {"x": "hunter2"}}
        answer = await api.client.put(SERVICE, json=content)
        assert answer.status_code == 422
        assert "hunter2" not in answer.text


async def test_over_the_limit_is_413_told_by_the_announced_length(api: Running):
    # Nothing of the body is sent: the answer does not wait for it.
    head = (
        f"PUT {SERVICE} HTTP/1.1\r\nHost: localhost\r\nX-API-Token: {WRITER}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {api.state.limits.body + 1}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    answer = await api.exchange(head.encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"x-request-id" in answer
    assert api.services.changes == []


async def test_at_the_limit_is_read(api: Running):
    filler = api.state.limits.body - len(orjson.dumps(body(reason="")))
    # White space is content, too.
    content = orjson.dumps(body(reason="")) + b" " * filler
    answer = await api.client.put(SERVICE, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200


async def test_over_the_limit_in_chunks_is_413_and_the_connection_stays(api: Running):
    async def chunks():
        for _ in range(80):
            yield b" " * 65536

    answer = await api.client.put(SERVICE, content=chunks(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["detail"].startswith("The body is over the limit of 1048576 bytes")
    assert (await api.client.get(SERVICE)).status_code == 200
