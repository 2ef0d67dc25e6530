"""The signer: what it gives verifies, and its times rise as readers need them."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from tars_config import control, wire

from actors.runtime import Handle
from actors.signer import IssueTimes, SignerActor, Unsigned

EPOCH = "0d6b6c5a-54f5-4c0e-9f61-000000000001"
FORGIVEN = timedelta(minutes=5)

KEY = Ed25519PrivateKey.generate()


def unsigned(version: int = 1, **config) -> Unsigned:
    return Unsigned("stt-worker", wire.canonical(config), wire.checksum(config), version, EPOCH)


@pytest.fixture
async def signer():
    ref = SignerActor.start(KEY)
    await ref.started
    handle: Handle[SignerActor] = Handle("signer")
    handle.attach(ref)
    yield handle
    ref.stop(block=False)
    await ref.exited.wait()


async def test_what_it_signs_verifies_under_its_public_key(signer):
    before = datetime.now(UTC)
    update = wire.decode(await signer.ask(SignerActor.sign, unsigned(7, größe=1.5, name="ö|ß")))
    wire.verify(update, [KEY.public_key()])
    assert (update.service, update.version, update.config_epoch) == ("stt-worker", 7, EPOCH)
    assert update.config == {"größe": 1.5, "name": "ö|ß"}
    assert before - timedelta(milliseconds=1) <= update.issued_at <= datetime.now(UTC) + timedelta(milliseconds=1)


async def test_a_control_signal_verifies_and_is_later_than_everything_before(signer):
    update = wire.decode(await signer.ask(SignerActor.sign, unsigned()))
    acted: list[datetime] = []
    for _ in range(50):
        payload = await signer.ask(
            SignerActor.sign_control, "stt-worker", "restart", reason="ö\n|", config_epoch=EPOCH, version=7
        )
        signal = control.decode(payload)
        control.verify(signal, [KEY.public_key()])
        control.judge(acted, signal, service="stt-worker", now=datetime.now(UTC))
        acted.append(signal.issued_at)
    assert (signal.service, signal.command, signal.reason) == ("stt-worker", "restart", "ö\n|")
    assert (signal.config_epoch, signal.version) == (EPOCH, 7)
    assert update.issued_at < acted[0]


async def test_a_control_signal_that_no_reader_would_accept_is_not_signed(signer):
    with pytest.raises(ValueError, match="at most 500"):
        await signer.ask(SignerActor.sign_control, "stt", "restart", reason="x" * 501, config_epoch=EPOCH, version=1)


async def test_a_stranger_does_not_verify_it(signer):
    update = wire.decode(await signer.ask(SignerActor.sign, unsigned()))
    with pytest.raises(wire.Refused) as refused:
        wire.verify(update, [Ed25519PrivateKey.generate().public_key()])
    assert refused.value.reason is wire.Reason.BAD_SIGNATURE


async def test_each_time_is_later_than_the_one_before(signer):
    times = [wire.decode(await signer.ask(SignerActor.sign, unsigned())).issued_at for _ in range(200)]
    assert all(earlier < later for earlier, later in itertools.pairwise(times))
    # A whole second has another spelling, and would not keep its place between its neighbours.
    assert all(time.microsecond for time in times)


async def test_what_no_reader_would_accept_is_not_signed(signer):
    big = b'{"a":"' + b"x" * wire.MAX_CONFIG_BYTES + b'"}'
    with pytest.raises(ValueError, match="config has"):
        await signer.ask(SignerActor.sign, Unsigned("stt", big, "0" * 64, 1, EPOCH))
    # It belongs to the asker; the signer lives on.
    assert await signer.ask(SignerActor.sign, unsigned())


def at(start: datetime, times: IssueTimes, clock: list[int], offset: timedelta) -> datetime:
    clock[0] = int((start + offset - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) * 1000
    return times.next()


def test_after_a_small_step_back_times_rise_on_within_what_readers_forgive():
    clock = [0]
    times, start = IssueTimes(lambda: clock[0]), datetime(2026, 11, 20, 12, tzinfo=UTC)
    first = at(start, times, clock, timedelta())
    second = at(start, times, clock, timedelta(minutes=-4))
    assert first < second
    assert second - (start - timedelta(minutes=4)) < FORGIVEN
    # When the clock has caught up, times follow it again.
    assert (
        timedelta(0)
        <= at(start, times, clock, timedelta(seconds=9)) - (start + timedelta(seconds=9))
        < timedelta(milliseconds=1)
    )


def test_after_a_large_step_back_times_follow_the_clock_and_never_repeat():
    clock = [0]
    times, start = IssueTimes(lambda: clock[0]), datetime(2026, 11, 20, 12, tzinfo=UTC)
    given_before = {at(start, times, clock, timedelta(microseconds=100 * n)) for n in range(50)}
    late = at(start, times, clock, timedelta(hours=1))
    back = [at(start, times, clock, timedelta(microseconds=100 * n)) for n in range(50)]
    assert late - timedelta(hours=1) < back[0] + timedelta(milliseconds=1)
    assert not given_before & set(back)
    assert back == sorted(set(back))


@given(st.lists(st.integers(min_value=-(10**12), max_value=10**12), max_size=60))
def test_times_are_fresh_and_unique_whatever_the_clock_does(steps):
    """As long as a backwards step is not the hundredth: there are 99 runs of the clock."""
    now = 1_800_000_000 * 10**9
    times, seen = IssueTimes(lambda: now), set()
    for step in steps:
        now += step
        issued = times.next()
        assert issued not in seen
        seen.add(issued)
        ahead = issued - datetime.fromtimestamp(now / 10**9, UTC)
        assert timedelta(milliseconds=-1) < ahead < FORGIVEN
