"""Undoing: from what is in force now back to each state that there was."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from actors.database._past import Layer, Undo, differences, state_at
from schemas.records import ABSENT, SECRET_MARK
from schemas.service_schema import ServiceSchema
from schemas.services import TtsWorker
from schemas.types import ServiceName

TTS = ServiceName("tts-worker")
SCHEMA = ServiceSchema(TTS, TtsWorker)

KEYS = ("a", "b", "c")
SECRETS = ("s", "t")
values = st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=2) | st.lists(st.booleans(), max_size=2)
plain = st.tuples(st.sampled_from(KEYS), st.just(ABSENT) | values)
secret = st.tuples(st.sampled_from(SECRETS), st.booleans())
# A commit changes several keys, each once.
commits = st.lists(
    st.tuples(
        st.lists(plain, max_size=3, unique_by=lambda each: each[0]),
        st.lists(secret, max_size=2, unique_by=lambda each: each[0]),
    ),
    max_size=12,
)


def forward(
    changes: list[tuple[list[tuple[str, Any]], list[tuple[str, bool]]]],
) -> tuple[list[Layer], list[list[Undo]]]:
    """Apply them: the state after each, the first before all; and the rows that each has written, as the store does."""
    states, rows = [Layer({}, frozenset())], []
    for wanted, secrets in changes:
        now = states[-1]
        written = [Undo(key, now.values.get(key, ABSENT), is_secret=False) for key, _ in wanted]
        config = {**now.values, **dict(wanted)}
        kept = set(now.secrets)
        for key, is_set in secrets:
            if is_set or key in kept:
                written.append(Undo(key, SECRET_MARK if key in kept else ABSENT, is_secret=True))
            (kept.add if is_set else kept.discard)(key)
        states.append(Layer({key: value for key, value in config.items() if value is not ABSENT}, kept))
        rows.append(written)
    return states, rows


@given(changes=commits)
def test_every_earlier_state_is_found_again(changes):
    states, rows = forward(changes)
    present = states[-1]
    for version, state in enumerate(states):
        newer = [row for written in reversed(rows[version:]) for row in reversed(written)]
        # As text: true is not 1 there.
        found = state_at(present, newer)
        assert (repr(sorted(found.values.items())), found.secrets) == (
            repr(sorted(state.values.items())),
            state.secrets,
        )
        # Of several rows of one key the oldest is enough.
        oldest = {(row.key, row.is_secret): row for row in newer}
        assert state_at(present, reversed(oldest.values())) == found
    assert state_at(present, []) == present


def differing(old: dict[str, Any], new: dict[str, Any], **more: Any) -> dict[str, Any]:
    """By key; `secrets` and `touched` are keys."""
    secrets = more.get("secrets", ((), ()))
    found = differences(
        TTS,
        more.get("schema", SCHEMA),
        Layer(old, frozenset(secrets[0])),
        Layer(new, frozenset(secrets[1])),
        frozenset(more.get("touched", ())),
    )
    return {each.key: each for each in found}


def test_defaults_are_shown_and_said_to_be_defaults():
    found = differing({"volume_percent": 40}, {"piper_voice": "de"})
    # In the model's order.
    assert list(found) == ["piper_voice", "volume_percent"]
    voice, volume = found.values()
    assert (voice.old, voice.new, voice.old_is_default, voice.new_is_default) == (
        "en_US-lessac-medium",
        "de",
        True,
        False,
    )
    assert (voice.apply, voice.title) == ("restart", "Piper voice")
    assert (volume.old, volume.new, volume.old_is_default, volume.new_is_default) == (40, 100, False, True)
    assert volume.apply == "live"


def test_a_default_that_was_pinned_changes_nothing_for_the_worker():
    (found,) = differing({}, {"volume_percent": 100}).values()
    assert (found.old, found.new, found.old_is_default, found.new_is_default, found.apply) == (
        100,
        100,
        True,
        False,
        "none",
    )


def test_what_the_model_has_no_more_is_told_without_a_default():
    (found,) = differing({"gone": None}, {}).values()
    assert (found.key, found.title, found.old, found.new, found.apply) == ("gone", "gone", None, None, "none")
    assert (found.old_is_default, found.new_is_default) == (False, True)
    (found,) = differing({"volume_percent": 1}, {}, schema=None).values()
    assert (found.title, found.new, found.apply) == ("volume_percent", None, "none")


def test_true_is_not_one_but_one_is_one_point_zero():
    assert list(
        differing({"tts_streaming": True, "volume_percent": 1}, {"tts_streaming": 1, "volume_percent": 1.0})
    ) == ["tts_streaming"]


def test_a_secret_is_a_mark_or_nothing():
    key = "eleven_api_key"
    (found,) = differing({}, {}, secrets=((), (key,))).values()
    assert (found.old, found.new, found.is_secret, found.apply) == (None, SECRET_MARK, True, "restart")
    assert (found.old_is_default, found.new_is_default) == (True, False)
    # Written in between: nobody knows whether to the same.
    (found,) = differing({}, {}, secrets=((key,), (key,)), touched=(key,)).values()
    assert (found.old, found.new) == (SECRET_MARK, SECRET_MARK)
    assert differing({}, {}, secrets=((key,), (key,))) == {}
    # Set and deleted again.
    assert differing({}, {}, touched=(key,)) == {}


def test_what_an_earlier_model_had_as_a_plain_value_is_a_mark_where_it_is_a_secret_now():
    found = differing({"eleven_api_key": "in clear"}, {})
    assert "in clear" not in repr(found)
    assert (found["eleven_api_key"].old, found["eleven_api_key"].is_secret) == (SECRET_MARK, True)
