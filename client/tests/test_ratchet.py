import os
import random
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tars_config.ratchet import MAX_LEFT, WINDOW, Ratchet, RatchetFile, Verdict, advanced, clamped, judge, reset_to
from tars_config.wire import Reason, Refused, SignedUpdate

NOW = datetime(2026, 11, 20, 8, 30, 0, 1, UTC)
SECOND = timedelta(seconds=1)


def epoch(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def update(version=1, *, of=1, issued_at=NOW, content="a", service="stt-worker") -> SignedUpdate:
    """An update that has been verified: what the ratchet is asked about."""
    return SignedUpdate(
        service=service,
        config={"content": content},
        version=version,
        config_epoch=epoch(of),
        checksum=content * 64,
        signature="",
        issued_at=issued_at,
    )


def reason(state, candidate, now=NOW):
    with pytest.raises(Refused) as refused:
        judge(state, candidate, service="stt-worker", now=now)
    return refused.value.reason


def verdict(state, candidate, now=NOW):
    return judge(state, candidate, service="stt-worker", now=now)


FIVE = advanced(None, update(5))


def test_the_first_update_is_applied_whatever_its_version():
    assert verdict(None, update(41)) is Verdict.APPLY


def test_versions_of_one_epoch_only_rise():
    assert verdict(FIVE, update(6)) is Verdict.APPLY
    assert verdict(FIVE, update(9, issued_at=NOW - SECOND)) is Verdict.APPLY
    assert verdict(FIVE, update(5, issued_at=NOW + SECOND)) is Verdict.REPEAT
    assert reason(FIVE, update(4)) is Reason.DOWNGRADED
    assert reason(FIVE, update(5, content="b")) is Reason.CONFLICT


def test_another_service_is_refused_even_at_first():
    assert reason(None, update(service="tts-worker")) is Reason.WRONG_SERVICE


def test_five_minutes_either_way_and_no_more():
    for state in (None, FIVE):
        verdict(state, update(6, issued_at=NOW - WINDOW))
        verdict(state, update(6, issued_at=NOW + WINDOW))
        assert reason(state, update(6, issued_at=NOW - WINDOW - timedelta.resolution)) is Reason.STALE
        assert reason(state, update(6, issued_at=NOW + WINDOW + timedelta.resolution)) is Reason.FUTURE


def test_a_new_epoch_needs_a_later_time_and_may_have_any_version():
    assert verdict(FIVE, update(1, of=2, issued_at=NOW + timedelta.resolution)) is Verdict.APPLY
    assert reason(FIVE, update(9, of=2, issued_at=NOW)) is Reason.REPLAYED
    assert reason(FIVE, update(9, of=2, issued_at=NOW - SECOND)) is Reason.REPLAYED


def test_a_left_epoch_never_comes_back():
    state = FIVE
    for number in (2, 3, 4):
        state = advanced(state, update(of=number, issued_at=NOW + number * SECOND))
    for number in (1, 2, 3):
        assert reason(state, update(99, of=number, issued_at=NOW + WINDOW)) is Reason.LEFT_EPOCH


def test_repeats_move_the_last_time_and_nothing_else():
    later = advanced(FIVE, update(5, issued_at=NOW + SECOND))
    assert later == replace(FIVE, issued_at=NOW + SECOND)
    assert advanced(later, update(5, issued_at=NOW)) == later


def test_a_time_that_was_far_ahead_counts_as_now_and_does_not_lock_out():
    ahead = replace(FIVE, issued_at=NOW + timedelta(days=3650))
    assert reason(ahead, update(1, of=2, issued_at=NOW + SECOND)) is Reason.REPLAYED
    healed = clamped(ahead, NOW)
    assert healed.issued_at == NOW
    assert verdict(healed, update(1, of=2, issued_at=NOW + SECOND)) is Verdict.APPLY
    # Up to 5 minutes it stays what it is.
    near = replace(FIVE, issued_at=NOW + WINDOW)
    assert clamped(near, NOW) is near


def test_a_snapshot_sets_it_backwards_too_even_into_a_left_epoch():
    second = advanced(FIVE, update(8, of=2, issued_at=NOW + SECOND))
    back = reset_to(second, update(3, of=1, issued_at=NOW - timedelta(days=9)))
    assert (back.config_epoch, back.version, back.left) == (epoch(1), 3, (epoch(2),))
    assert back.issued_at == NOW + SECOND
    assert verdict(back, update(4, of=1)) is Verdict.APPLY
    assert reason(back, update(9, of=2, issued_at=NOW + WINDOW)) is Reason.LEFT_EPOCH


def test_what_is_remembered_is_bounded():
    state = None
    for number in range(MAX_LEFT + 10):
        state = advanced(state, update(of=number, issued_at=NOW + number * timedelta.resolution))
    assert state is not None
    assert len(state.left) == MAX_LEFT
    assert state.left[-1] == epoch(MAX_LEFT + 8)


class Life(RuleBasedStateMachine):
    """A reader over clock steps, restarts, rebuilds and an attacker who replays whatever was ever signed."""

    @initialize()
    def begin(self):
        self.now = NOW
        self.state: Ratchet | None = None
        self.supervisor = (1, 1)
        self.epochs = 1
        self.recorded: list[SignedUpdate] = []
        self.applied: list[tuple[str, int]] = []
        self.left: set[str] = set()
        self.times: list[datetime] = []

    def offer(self, candidate: SignedUpdate):
        if self.state is not None:
            self.state = clamped(self.state, self.now)
        try:
            found = judge(self.state, candidate, service="stt-worker", now=self.now)
        except Refused as refused:
            return refused.reason
        before = self.state
        self.state = advanced(self.state, candidate)
        assert abs(candidate.issued_at - self.now) <= WINDOW
        if found is Verdict.APPLY:
            if before is not None and before.config_epoch != candidate.config_epoch:
                self.left.add(before.config_epoch)
            self.applied.append((candidate.config_epoch, candidate.version))
        return found

    @rule(seconds=st.sampled_from([0.000001, 1, 60, 299, 301, 86400]))
    def time_passes(self, seconds):
        self.now += timedelta(seconds=seconds)

    @rule()
    def the_supervisor_changes_something(self):
        number, version = self.supervisor
        self.supervisor = (number, version + 1)

    @rule(jump=st.integers(1, 3))
    def the_supervisor_is_rebuilt(self, jump):
        self.epochs += 1
        self.supervisor = (self.epochs, self.supervisor[1] + jump)
        self.now += timedelta.resolution

    @rule()
    def the_supervisor_publishes(self):
        """What it says is accepted, always: as news, or as a repeat of what runs."""
        self.now += timedelta.resolution
        number, version = self.supervisor
        fresh = update(version, of=number, issued_at=self.now, content="a")
        self.recorded.append(fresh)
        running = self.state and (self.state.config_epoch, self.state.version)
        found = self.offer(fresh)
        assert found is (Verdict.REPEAT if running == (epoch(number), version) else Verdict.APPLY)

    @precondition(lambda self: self.recorded)
    @rule(data=st.data())
    def an_old_message_is_replayed(self, data):
        replayed = data.draw(st.sampled_from(self.recorded))
        running = self.state and (self.state.config_epoch, self.state.version)
        assert self.offer(replayed) is not Verdict.APPLY
        assert running == (self.state and (self.state.config_epoch, self.state.version))

    @invariant()
    def nothing_ever_went_back(self):
        assert len(set(self.applied)) == len(self.applied)
        by_epoch: dict[str, int] = {}
        entered: list[str] = []
        for name, version in self.applied:
            assert version > by_epoch.get(name, 0)
            by_epoch[name] = version
            if not entered or entered[-1] != name:
                assert name not in entered
                entered.append(name)
        if self.state is not None:
            assert set(self.state.left) == self.left


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


@given(st.integers(1, 2**63 - 1), st.lists(st.integers(0, 999), max_size=20), st.timedeltas(-WINDOW, WINDOW))
def test_the_file_gives_back_what_was_stored(tmp_path_factory, version, left, delta):
    file = RatchetFile(tmp_path_factory.mktemp("state") / "ratchet.json", "stt-worker")
    state = replace(FIVE, version=version, left=tuple(map(epoch, left)), issued_at=NOW + delta)
    file.store(state)
    assert file.load() == state


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "ratchet.json"
    RatchetFile(path, "stt-worker").store(advanced(FIVE, update(6, of=2, issued_at=NOW + SECOND)))
    return path


def test_the_file_is_ours_alone(stored):
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600


def test_no_file_is_no_ratchet(tmp_path):
    assert RatchetFile(tmp_path / "ratchet.json", "stt-worker").load() is None


def test_a_torn_file_never_gives_another_ratchet(stored):
    whole = stored.read_bytes()
    for length in range(len(whole) - 1):  # the last byte is the newline
        stored.write_bytes(whole[:length])
        assert RatchetFile(stored, "stt-worker").load() is None


def test_a_flipped_bit_never_gives_another_ratchet(stored):
    whole = stored.read_bytes()
    true = RatchetFile(stored, "stt-worker").load()
    for position in random.Random(7).sample(range(len(whole) * 8), 500):
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        stored.write_bytes(flipped)
        assert RatchetFile(stored, "stt-worker").load() in {None, true}


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b"\xff" * 100, b"[" * 10_000, b" " * 200_000])
def test_garbage_is_put_aside_and_told(stored, content, caplog):
    stored.write_bytes(content)
    assert RatchetFile(stored, "stt-worker").load() is None
    assert not stored.exists()
    assert stored.with_name("ratchet.json.damaged").read_bytes() == content
    assert "damaged" in caplog.text


def test_another_services_file_is_not_taken(stored):
    assert RatchetFile(stored, "tts-worker").load() is None


def test_a_pipe_in_its_place_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "ratchet.json")
    assert RatchetFile(tmp_path / "ratchet.json", "stt-worker").load() is None


def test_a_crash_while_writing_leaves_the_old_one_and_its_rest_is_cleared(stored):
    old = RatchetFile(stored, "stt-worker").load()
    (stored.parent / ".ratchet.json.abc.new").write_bytes(b'{"half')
    assert RatchetFile(stored, "stt-worker").load() == old
    assert sorted(path.name for path in stored.parent.iterdir()) == ["ratchet.json"]
