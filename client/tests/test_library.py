"""The library without a broker: messages come through `receive`, as the connection hands them over."""

import asyncio
import functools
import hashlib
import hmac
import logging
import os
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from tars_config import ConfigInvalid, ConfigLibrary, RestartRequired, Surroundings, wire
from tars_config.testing import TestSupervisor

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


class Stt(BaseModel):
    model_config = ConfigDict(extra="forbid")

    vad_threshold: float = Field(default=0.5, ge=0, le=1)
    whisper_model: str = "base.en"
    channels: int = 1


class Recorder:
    """A callback that remembers what it was called with, and can be told to misbehave."""

    def __init__(self) -> None:
        self.calls: list[Stt] = []
        self.answer = None

    def __call__(self, config: Stt):
        self.calls.append(config)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
async def library(supervisor):
    async with ConfigLibrary("stt-worker", surroundings=supervisor.surroundings()) as library:
        yield library


@pytest.fixture
async def recorder(library):
    recorder = Recorder()
    await library.get_config(Stt)
    await library.subscribe_updates(recorder, Stt)
    return recorder


def restarted(supervisor, **overrides) -> ConfigLibrary:
    return ConfigLibrary("stt-worker", surroundings=supervisor.surroundings(**overrides))


# --- reading ---


async def test_three_lines_give_a_typed_config(supervisor, monkeypatch):
    for name, value in supervisor.environment().items():
        monkeypatch.setenv(name, value)
    library = ConfigLibrary("stt-worker")
    await library.initialize()
    assert await library.get_config(Stt) == Stt()
    assert library.version == 1
    assert library.database_available
    assert not library.is_read_only
    await library.close()
    await library.close()


async def test_environment_beats_wire_beats_default(supervisor):
    supervisor.config |= {"vad_threshold": 0.8, "whisper_model": "tiny"}
    supervisor.write_snapshot()
    async with restarted(supervisor, VAD_THRESHOLD="0.25") as library:
        config = await library.get_config(Stt)
        assert (config.vad_threshold, config.whisper_model, config.channels) == (0.25, "tiny", 1)
        assert [library.source_of(key) for key in ("vad_threshold", "whisper_model", "channels")] == [
            "env",
            "database",
            "default",
        ]
        await library.subscribe_updates(recorder := Recorder(), Stt)
        await supervisor.deliver(library, {"vad_threshold": 0.9, "channels": 2})
        assert recorder.calls == [Stt(vad_threshold=0.25, whisper_model="tiny", channels=2)]
        assert library.source_of("channels") == "database"


async def test_a_model_may_know_less_than_the_service_has(library, caplog):
    class Little(BaseModel):
        model_config = ConfigDict(extra="forbid")
        channels: int

    caplog.set_level(logging.INFO)
    for _ in range(2):
        assert await library.get_config(Little) == Little(channels=1)
    assert caplog.text.count("left out: vad_threshold, whisper_model") == 1


async def test_secrets_come_from_files_and_are_never_shown(supervisor):
    class WithSecret(BaseModel):
        api_key: SecretStr | None = None
        other_key: str = ""

    supervisor.set_secret("api_key", "hunter2")
    supervisor.set_secret("other_key", "hunter3\n")
    async with restarted(supervisor, OTHER_KEY="hunter4") as library:
        config = await library.get_config(WithSecret)
        assert config.api_key is not None
        assert (config.api_key.get_secret_value(), config.other_key) == ("hunter2", "hunter4")
        assert library.secrets["api_key"].get_secret_value() == "hunter2"
        assert library.secrets["other_key"].get_secret_value() == "hunter4"
        assert "hunter" not in repr(library.secrets)
        assert (library.source_of("api_key"), library.source_of("other_key")) == ("database", "env")
        assert "api_key" not in await library.get_values()

        seen = []
        await library.subscribe_updates(
            lambda config: seen.append((config.api_key, library.secrets["api_key"])), WithSecret
        )
        supervisor.set_secret("api_key", "hunter5")
        await supervisor.deliver(library)
        assert [(model.get_secret_value(), own.get_secret_value()) for model, own in seen] == [("hunter5", "hunter5")]


async def test_an_error_names_key_and_variable_and_no_secret(supervisor):
    supervisor.set_secret("whisper_model", "hunter2")

    class Picky(Stt):
        def model_post_init(self, context: object) -> None:
            raise ValueError(f"unheard of: {self.whisper_model}")

    async with restarted(supervisor, CHANNELS="many", VAD_THRESHOLD="7") as library:
        with pytest.raises(ConfigInvalid) as error:
            await library.get_config(Stt)
        assert "channels (environment variable CHANNELS)" in str(error.value)
        assert "vad_threshold (environment variable VAD_THRESHOLD)" in str(error.value)
        assert library.last_report is not None
        assert not library.last_report.ok
    async with restarted(supervisor) as library:
        with pytest.raises(ConfigInvalid, match=r"unheard of: \*{8}"):
            await library.get_config(Picky)
        assert library.last_report is not None
        assert "hunter2" not in library.last_report.model_dump_json()


async def test_values_without_a_model_take_the_type_of_what_they_cover(supervisor):
    supervisor.config |= {"on": True, "names": ["a"], "none": None}
    supervisor.write_snapshot()
    async with restarted(supervisor, CHANNELS="2", ON="off", NAMES='["b"]', VAD_THRESHOLD="1") as library:
        assert await library.get_values() == {
            "vad_threshold": 1.0,
            "whisper_model": "base.en",
            "channels": 2,
            "on": False,
            "names": ["b"],
            "none": None,
        }
    for wrong in ({"CHANNELS": "2.5"}, {"ON": "maybe"}, {"NAMES": "{}"}, {"VAD_THRESHOLD": "nan"}):
        async with restarted(supervisor, **wrong) as library:
            with pytest.raises(ConfigInvalid, match=next(iter(wrong))):
                await library.get_values()


async def test_nothing_is_read_before_initialize(supervisor):
    library = restarted(supervisor)
    with pytest.raises(RuntimeError, match="initialize"):
        await library.get_config(Stt)
    with pytest.raises(RuntimeError, match="initialize"):
        await library.subscribe_updates(Recorder(), Stt)


# --- sources ---


def make_store(path, service="stt-worker", config='{"channels": 2}'):
    with sqlite3.connect(path) as store:
        store.execute("PRAGMA journal_mode=WAL")
        store.execute(
            "CREATE TABLE service_configs(service TEXT PRIMARY KEY, config_json TEXT, version INTEGER,"
            " config_epoch TEXT, updated_at TEXT, updated_by TEXT)"
        )
        store.execute(
            "INSERT INTO service_configs VALUES (?, ?, 4, '00000000-0000-4000-8000-000000000001', '', '')",
            (service, config),
        )
    store.close()


def make_lkg(path, key, config):
    payload = {"payload": {"stt-worker": config}, "config_epoch": "00000000-0000-4000-8000-000000000001"}
    signature = hmac.new(key, wire.canonical(payload), hashlib.sha256).hexdigest()
    path.write_bytes(orjson.dumps({"payload": payload, "signature": signature, "algorithm": "hmac-sha256"}))


async def test_sources_are_tried_in_order_and_each_is_told(supervisor, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    store, lkg, key = tmp_path / "config.db", tmp_path / "config.lkg.json", b"k" * 32
    make_store(store)
    make_lkg(lkg, key, {"channels": 1, "whisper_model": "small"})
    around = supervisor.surroundings(
        CONFIG_DB_PATH=str(store),
        CONFIG_LKG_CACHE_PATH=str(lkg),
        LKG_HMAC_KEY_BASE64="a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=",
    )

    async def start():
        caplog.clear()
        async with ConfigLibrary("stt-worker", surroundings=around) as library:
            return await library.get_config(Stt), library.version, library.is_read_only

    assert await start() == (Stt(), 1, False)
    assert "config from the snapshot: version 1" in caplog.text
    supervisor.snapshot.unlink()
    assert await start() == (Stt(), 1, True)
    assert "no snapshot at" in caplog.text
    assert "config from the last applied copy" in caplog.text
    (supervisor.state_directory / "last-applied.json").unlink()
    assert await start() == (Stt(channels=2), 4, False)
    assert "config from the store: version 4" in caplog.text
    store.unlink()
    assert await start() == (Stt(whisper_model="small"), None, True)
    assert not store.exists(), "a reader never creates the store"
    lkg.write_bytes(lkg.read_bytes().replace(b"small", b"large"))
    assert await start() == (Stt(), None, True)
    assert "its HMAC does not match" in caplog.text
    assert "starting with the defaults" in caplog.text


@pytest.mark.parametrize("damage", [b"", b"not a database" * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
async def test_a_damaged_store_is_passed_over(tmp_path, damage, caplog):
    store = tmp_path / "config.db"
    store.write_bytes(damage)
    async with ConfigLibrary("stt-worker", surroundings=Surroundings(database=store)) as library:
        assert await library.get_config(Stt) == Stt()
    assert "store" in caplog.text
    assert store.read_bytes() == damage


async def test_a_store_that_its_writer_left_in_a_crash_is_read_and_not_touched(tmp_path):
    make_store(tmp_path / "live.db")
    with closing(sqlite3.connect(tmp_path / "live.db")) as writer:
        writer.execute("UPDATE service_configs SET config_json = '{\"channels\": 7}'")
        writer.commit()
        store, log = tmp_path / "config.db", tmp_path / "config.db-wal"
        store.write_bytes((tmp_path / "live.db").read_bytes())
        log.write_bytes((tmp_path / "live.db-wal").read_bytes())
    before = store.read_bytes(), log.read_bytes()
    async with ConfigLibrary("stt-worker", surroundings=Surroundings(database=store)) as library:
        assert await library.get_config(Stt) == Stt(channels=7)
    assert (store.read_bytes(), log.read_bytes()) == before


async def test_a_store_without_this_service_is_passed_over(tmp_path):
    make_store(tmp_path / "config.db", service="router")
    around = Surroundings(database=tmp_path / "config.db")
    async with ConfigLibrary("stt-worker", surroundings=around) as library:
        assert library.version is None


@pytest.mark.parametrize("whose", ["other service", "stranger", "flipped", "missing"])
async def test_a_snapshot_that_does_not_hold_is_passed_over(supervisor, tmp_path, whose, caplog):
    if whose == "other service":
        supervisor.service = "tts-worker"
        supervisor.write_snapshot()
        supervisor.service = "stt-worker"
    elif whose == "stranger":
        supervisor.private_key = Ed25519PrivateKey.generate()
        supervisor.write_snapshot()
    elif whose == "flipped":
        supervisor.snapshot.write_bytes(supervisor.snapshot.read_bytes().replace(b"0.5", b"0.7"))
    else:
        supervisor.snapshot.unlink()
    async with restarted(supervisor) as library:
        assert library.version is None
        assert await library.get_config(Stt) == Stt()
    assert "snapshot" in caplog.text


async def test_an_old_snapshot_counts_whatever_its_age(supervisor):
    old = supervisor.sign(issued_at=datetime.now(UTC) - timedelta(days=400))
    supervisor.snapshot.write_bytes(old.encode())
    async with restarted(supervisor) as library:
        assert library.version == 1


async def test_with_nothing_at_all_it_works_on_defaults():
    async with ConfigLibrary("stt-worker", surroundings=Surroundings()) as library:
        assert await library.get_config(Stt) == Stt()
        assert library.is_read_only
        assert library.last_report is None


# --- updates ---


async def test_an_update_is_applied_reported_and_kept_over_a_restart(supervisor, library, recorder):
    await supervisor.deliver(library, {"vad_threshold": 0.7})
    assert recorder.calls == [Stt(vad_threshold=0.7)]
    assert await library.get_config(Stt) == Stt(vad_threshold=0.7)
    report = library.last_report
    assert (report.ok, report.version, report.config_epoch) == (True, 2, supervisor.config_epoch)
    assert (report.service, report.instance, report.error) == ("stt-worker", "test", None)
    await library.close()
    supervisor.snapshot.unlink()
    async with restarted(supervisor) as again:
        assert await again.get_config(Stt) == Stt(vad_threshold=0.7)
        assert again.version == 2


async def test_an_async_callback_and_an_object_that_gives_an_awaitable(supervisor, library):
    seen = []

    async def take(config: Stt) -> None:
        await asyncio.sleep(0)
        seen.append(config.channels)

    await library.subscribe_updates(functools.partial(take), Stt)
    await supervisor.deliver(library, {"channels": 2})
    assert seen == [2]
    with pytest.raises(RuntimeError, match="already"):
        await library.subscribe_updates(take, Stt)


async def test_repeats_are_silent_and_empty_payloads_nothing(supervisor, library, recorder):
    await supervisor.deliver(library, {"channels": 2})
    for _ in range(3):
        library.receive(supervisor.sign().encode())
        library.receive(b"")
        await library.settle()
    assert len(recorder.calls) == 1
    assert not library.refused


@pytest.mark.parametrize("outcome", ["raises", "is cancelled", "takes too long", "does not fit"])
async def test_a_callback_that_fails_leaves_the_old_config_in_force(supervisor, outcome):
    async def fail(config: Stt) -> None:
        calls.append(config)
        if outcome == "raises":
            raise OSError(f"no such model, and the key is {'hunter2'}")
        if outcome == "is cancelled":
            raise asyncio.CancelledError
        await asyncio.Event().wait()

    calls = []
    supervisor.set_secret("api_key", "hunter2")
    library = ConfigLibrary("stt-worker", surroundings=supervisor.surroundings(), callback_timeout_s=0.05)
    async with library:
        before = await library.get_config(Stt)
        await library.subscribe_updates(fail, Stt)
        changes = {"vad_threshold": 7} if outcome == "does not fit" else {"vad_threshold": 0.7}
        for _ in range(3):  # the same version again and again
            await supervisor.deliver(library, changes)
            supervisor.version -= 1
        assert len(calls) == (0 if outcome == "does not fit" else 1)
        assert await library.get_config(Stt) == before
        report = library.last_report
        assert (report.ok, report.version) == (False, 2)
        assert report.error
        assert "hunter2" not in report.error
        assert {"raises": "OSError: no such model", "does not fit": "vad_threshold"}.get(outcome, "") in report.error
    supervisor.version += 1
    # The version is not lost: a restart offers it again, here from the retained message.
    async with restarted(supervisor) as again:
        await again.get_config(Stt)
        await again.subscribe_updates(recorder := Recorder(), Stt)
        supervisor.config["vad_threshold"] = 0.7
        again.receive(supervisor.sign().encode())
        await again.settle()
        assert recorder.calls == [Stt(vad_threshold=0.7)]


async def test_a_failed_version_leaves_the_old_secrets_too_and_its_own_are_masked(supervisor):
    class WithSecret(BaseModel):
        api_key: str

    def fail(config: WithSecret) -> None:
        raise ValueError(f"{config.api_key} is not accepted")

    supervisor.set_secret("api_key", "hunter2")
    async with restarted(supervisor) as library:
        await library.get_config(WithSecret)
        await library.subscribe_updates(fail, WithSecret)
        supervisor.set_secret("api_key", "hunter3")
        await supervisor.deliver(library)
        assert library.last_report.error == "ValueError: ******** is not accepted"
        assert library.secrets["api_key"].get_secret_value() == "hunter2"
        assert (await library.get_config(WithSecret)).api_key == "hunter2"


async def test_after_a_failed_version_the_next_one_is_applied(supervisor, library, recorder):
    recorder.answer = ValueError("no")
    await supervisor.deliver(library, {"channels": 2})
    recorder.answer = None
    await supervisor.deliver(library, {"channels": 3})
    assert (library.last_report.ok, library.last_report.version) == (True, 3)


async def test_a_callback_that_ignores_its_cancellation_does_not_block_the_next_update(supervisor):
    async def stubborn(config: Stt) -> None:
        seen.append(config.channels)
        while config.channels == 2 and not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    seen, release = [], asyncio.Event()
    library = ConfigLibrary("stt-worker", surroundings=supervisor.surroundings(), callback_timeout_s=0.02)
    async with library:
        await library.subscribe_updates(stubborn, Stt)
        await supervisor.deliver(library, {"channels": 2})
        await supervisor.deliver(library, {"channels": 3})
        assert seen == [2, 3]
        assert library.last_report.ok
        release.set()
        await asyncio.sleep(0)


async def test_a_sync_callback_that_takes_too_long_counts_as_failed(supervisor):
    library = ConfigLibrary("stt-worker", surroundings=supervisor.surroundings(), callback_timeout_s=0.01)
    async with library:
        await library.subscribe_updates(lambda config: time.sleep(0.05), Stt)
        await supervisor.deliver(library, {"channels": 2})
        assert "longer than" in library.last_report.error


@pytest.mark.parametrize("raised", [True, False])
async def test_keys_that_wait_for_a_restart_are_reported_until_they_are_back(supervisor, library, recorder, raised):
    if raised:

        def take(config):
            raise RestartRequired(["whisper_model"])

        recorder.__class__ = type("Raising", (Recorder,), {"__call__": lambda self, config: take(config)})
    else:
        recorder.answer = RestartRequired(["whisper_model"])
    await supervisor.deliver(library, {"whisper_model": "small"})
    assert (library.last_report.ok, library.last_report.restart_required) == (True, ("whisper_model",))
    recorder.__class__ = Recorder
    recorder.answer = None
    await supervisor.deliver(library, {"channels": 2})
    assert library.last_report.restart_required == ("whisper_model",)
    await supervisor.deliver(library, {"whisper_model": "base.en"})
    assert library.last_report.restart_required == ()


async def test_updates_come_in_order_and_of_several_that_wait_only_the_newest(supervisor, library):
    async def slow(config: Stt) -> None:
        nonlocal running
        running += 1
        assert running == 1
        seen.append(config.channels)
        entered.set()
        await release.wait()
        running -= 1

    seen, running, entered, release = [], 0, asyncio.Event(), asyncio.Event()
    await library.subscribe_updates(slow, Stt)
    messages = []
    for channels in range(2, 7):
        supervisor.config["channels"] = channels
        supervisor.version += 1
        messages.append(supervisor.sign().encode())
    library.receive(messages[0])
    await entered.wait()
    # An old one that comes late does not take the place of a newer one that waits.
    for message in (messages[1], messages[4], messages[2], messages[0]):
        library.receive(message)
    release.set()
    await library.settle()
    assert seen == [2, 6]
    assert library.refused == {"downgraded": 2}


async def test_without_a_subscription_the_next_read_takes_the_update_over(supervisor, library):
    assert (await library.get_config(Stt)).channels == 1
    supervisor.config["channels"] = 2
    supervisor.version += 1
    library.receive(supervisor.sign().encode())
    assert (await library.get_config(Stt)).channels == 2
    assert library.last_report.version == 2


async def test_close_cancels_a_running_callback(supervisor):
    async def hang(config: Stt) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    entered, left = asyncio.Event(), asyncio.Event()
    library = restarted(supervisor)
    await library.initialize()
    await library.subscribe_updates(hang, Stt)
    supervisor.version += 1
    library.receive(supervisor.sign().encode())
    await entered.wait()
    await library.close()
    assert left.is_set()
    library.receive(supervisor.sign().encode())


# --- the bar: what is refused, also after a restart; what is applied, also in a new epoch ---


def flip_bits(message: bytes, count: int):
    for position in random.Random(20).sample(range(len(message) * 8), count):
        flipped = bytearray(message)
        flipped[position // 8] ^= 1 << position % 8
        yield bytes(flipped)


async def test_everything_bad_is_refused_and_everything_good_applied_also_after_restarts(supervisor):
    stranger = Ed25519PrivateKey.generate()
    applied: list[int] = []
    old: list[bytes] = []
    left: list[bytes] = []

    def bad() -> list[bytes]:
        now = supervisor.sign()
        message = now.encode()
        fields = {"service": now.service, "config": now.config, "config_epoch": now.config_epoch}
        later = datetime.now(UTC) + timedelta(minutes=1)

        def signed(key=supervisor.private_key, **changes):
            return wire.sign(key, **(fields | {"version": 99, "issued_at": datetime.now(UTC)} | changes)).encode()

        return [
            *old,
            *left,
            *flip_bits(message, 200),
            signed(service="tts-worker"),
            signed(stranger),
            signed(issued_at=later - timedelta(minutes=7)),
            signed(issued_at=later + timedelta(minutes=5)),
            orjson.dumps(orjson.loads(signed()) | {"extra": 1}),
            orjson.dumps({key: value for key, value in orjson.loads(signed()).items() if key != "signature"}),
            orjson.dumps(orjson.loads(signed()) | {"signature": ""}),
            orjson.dumps(orjson.loads(signed()) | {"config": now.config | {"channels": 66}}),
            signed(version=supervisor.version, config={"channels": 77}),
        ]

    for restart in range(4):
        async with restarted(supervisor) as library:
            await library.get_config(Stt)
            await library.subscribe_updates(lambda config: applied.append(config.channels), Stt)
            for _ in range(3):
                messages = bad()
                refused_before = sum(library.refused.values())
                for message in messages:
                    library.receive(message)
                await library.settle()
                assert sum(library.refused.values()) - refused_before == len(messages)
                applied.clear()
                old.append(supervisor.sign().encode())
                await supervisor.deliver(library, {"channels": supervisor.version + 1})
                assert applied == [supervisor.version]
                assert library.version == supervisor.version
        if restart == 1:
            # Rebuilt: its messages now belong to an epoch that was left.
            left += [supervisor.sign().encode(), *old]
            old.clear()
            supervisor.start_new_epoch()
            async with restarted(supervisor) as library:
                await library.get_config(Stt)
                await library.subscribe_updates(lambda config: applied.append(config.channels), Stt)
                await supervisor.deliver(library, {"channels": 5})
                assert library.config_epoch == supervisor.config_epoch
        # Half of the restarts find no snapshot: then the ratchet on disk alone has to hold.
        if restart % 2:
            supervisor.snapshot.unlink(missing_ok=True)
        else:
            supervisor.write_snapshot()


async def test_a_new_signing_key_is_accepted_as_soon_as_its_file_says_so(supervisor, library, recorder):
    public = supervisor.public_keys.read_bytes()
    supervisor.private_key = Ed25519PrivateKey.generate()
    await supervisor.deliver(library, {"channels": 2})
    assert library.refused == {"bad_signature": 1}
    supervisor.public_keys.write_bytes(
        public + supervisor.private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    await supervisor.deliver(library, {"channels": 3})
    assert [config.channels for config in recorder.calls] == [3]


async def test_a_key_file_that_changed_unseen_is_read_again_for_an_unknown_signature(supervisor, library, recorder):
    """Overwritten in place within one tick of the file system's clock: nothing but its content tells."""
    seen = supervisor.public_keys.stat()
    supervisor.private_key = Ed25519PrivateKey.generate()
    public = supervisor.private_key.public_key()
    supervisor.public_keys.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    os.utime(supervisor.public_keys, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    await supervisor.deliver(library, {"channels": 2})
    assert len(recorder.calls) == 1


async def test_refusals_are_counted_in_the_report(supervisor, library, recorder, eventually):
    for _ in range(5):
        library.receive(b"{}")
    await eventually(lambda: library.last_report.refused == {"unsigned": 5})


# --- crashes and damage ---

CRASH = """
import asyncio, os, signal, sys
from pathlib import Path
import orjson
from pydantic import BaseModel
from tars_config import ConfigLibrary

class Stt(BaseModel):
    channels: int

def take(config):
    print("applied", config.channels, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    library = ConfigLibrary()
    await library.initialize()
    await library.get_config(Stt)
    await library.subscribe_updates(take, Stt)
    library.receive(Path(sys.argv[1]).read_bytes())
    await library.settle()

asyncio.run(main())
"""


async def test_a_crash_between_apply_and_ratchet_offers_the_version_again(supervisor, tmp_path):
    supervisor.config["channels"] = 2
    supervisor.version = 2
    message = tmp_path / "message.json"
    message.write_bytes(supervisor.sign().encode())
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", CRASH, message],
        env=os.environ | supervisor.environment(),
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (-9, b"applied 2\n"), done.stderr
    for _ in range(2):  # the second time it is a repeat
        async with restarted(supervisor) as library:
            assert library.version == 1
            await library.subscribe_updates(recorder := Recorder(), Stt)
            library.receive(message.read_bytes())
            await library.settle()
            assert [config.channels for config in recorder.calls] == [2]
            assert not library.refused


async def test_a_crash_between_copy_and_ratchet_moves_the_ratchet_up(supervisor, library, recorder):
    await supervisor.deliver(library, {"channels": 2})
    ratchet = supervisor.state_directory / "ratchet.json"
    behind, old = ratchet.read_bytes(), supervisor.sign().encode()
    await supervisor.deliver(library, {"channels": 3})
    await library.close()
    ratchet.write_bytes(behind)
    supervisor.snapshot.unlink()
    async with restarted(supervisor) as again:
        assert (await again.get_config(Stt)).channels == 3
        again.receive(old)
        assert again.refused == {"downgraded": 1}


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff" * 50, None])
async def test_a_lost_copy_makes_the_repeat_be_applied(supervisor, library, recorder, damage):
    """The ratchet says it runs, but it does not: taken for a repeat, it would never run."""
    await supervisor.deliver(library, {"channels": 2})
    await library.close()
    supervisor.snapshot.unlink()
    copy = supervisor.state_directory / "last-applied.json"
    if damage is None:
        copy.unlink()
    else:
        copy.write_bytes(damage)
    async with restarted(supervisor) as again:
        assert (await again.get_config(Stt)).channels == 1
        await again.subscribe_updates(taken := Recorder(), Stt)
        again.receive(supervisor.sign().encode())
        await again.settle()
        assert taken.calls == [Stt(channels=2)]


async def test_a_damaged_ratchet_is_rebuilt_from_the_copy(supervisor, library, recorder):
    old = supervisor.sign().encode()
    await supervisor.deliver(library, {"channels": 2})
    await library.close()
    supervisor.snapshot.unlink()
    (supervisor.state_directory / "ratchet.json").write_bytes(b"\x00" * 100)
    async with restarted(supervisor) as again:
        assert again.version == 2
        again.receive(old)
        assert again.refused == {"downgraded": 1}


async def test_a_copy_is_a_fallback_until_the_supervisor_repeats_it(supervisor, library, recorder):
    await supervisor.deliver(library, {"channels": 2})
    await library.close()
    supervisor.snapshot.unlink()
    async with restarted(supervisor) as again:
        assert again.is_read_only
        again.receive(supervisor.sign().encode())
        assert again.database_available


async def test_a_state_directory_that_cannot_be_written_does_not_stop_an_update(supervisor, tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    around = supervisor.surroundings(TARS_STATE_DIRECTORY=str(tmp_path / "file"))
    async with ConfigLibrary("stt-worker", surroundings=around) as library:
        await library.get_config(Stt)
        await library.subscribe_updates(Recorder(), Stt)
        await supervisor.deliver(library, {"channels": 2})
        assert library.last_report.ok
    assert "could not be written down" in caplog.text


async def test_a_clock_that_once_ran_ahead_does_not_lock_out(supervisor):
    now = datetime.now(UTC)
    clock = now + timedelta(days=3650)
    library = ConfigLibrary("stt-worker", surroundings=supervisor.surroundings(), clock=lambda: clock)
    async with library:
        await library.subscribe_updates(Recorder(), Stt)
        supervisor.version += 1
        library.receive(supervisor.sign(issued_at=clock).encode())
        await library.settle()
    clock = now
    supervisor.snapshot.unlink()
    async with ConfigLibrary("stt-worker", surroundings=supervisor.surroundings(), clock=lambda: clock) as library:
        await library.subscribe_updates(recorder := Recorder(), Stt)
        supervisor.start_new_epoch()
        clock = now + timedelta(seconds=2)
        library.receive(supervisor.sign(issued_at=now + timedelta(seconds=1)).encode())
        await library.settle()
        assert len(recorder.calls) == 1


async def test_a_clock_that_is_set_right_while_running_does_not_lock_out(supervisor):
    now = datetime.now(UTC)
    clock = now + timedelta(days=3650)
    library = ConfigLibrary("stt-worker", surroundings=supervisor.surroundings(), clock=lambda: clock)
    async with library:
        await library.subscribe_updates(recorder := Recorder(), Stt)
        supervisor.version += 1
        library.receive(supervisor.sign(issued_at=clock).encode())
        await library.settle()
        clock = now
        supervisor.start_new_epoch()
        library.receive(supervisor.sign(issued_at=now - timedelta(seconds=1)).encode())
        assert library.refused == {"replayed": 1}
        library.receive(supervisor.sign(issued_at=now + timedelta(seconds=1)).encode())
        await library.settle()
        assert len(recorder.calls) == 2


async def test_reading_still_works_after_the_end(supervisor):
    library = restarted(supervisor)
    await library.initialize()
    await library.close()
    assert await library.get_config(Stt) == Stt()


async def test_the_service_may_come_from_the_environment_and_a_wrong_one_is_told(supervisor, caplog):
    assert ConfigLibrary(surroundings=supervisor.surroundings()).service == "stt-worker"
    ConfigLibrary("router", surroundings=supervisor.surroundings())
    assert "was started as stt-worker" in caplog.text
    with pytest.raises(ValueError, match="TARS_SERVICE"):
        ConfigLibrary(surroundings=Surroundings())


async def test_the_helper_is_usable_twice_in_one_folder(tmp_path):
    for _ in range(2):
        TestSupervisor(tmp_path, "router", {})
