"""A service's settings on real parts: what a change does, how it is refused, and what happens when a part fails in it."""

import asyncio
import sqlite3
from contextlib import closing

import pytest

from actors.cache import read_cache
from actors.runtime import OutcomeUnknown
from schemas.changes import OverriddenByEnvironment, ReadOnly, StaleVersion
from schemas.problems import ConfigInvalid
from schemas.states import Kind, Lifecycle
from tests.actors.service.conftest import MakeRig
from tests.actors.service.support import HMAC, SLEEPER, LouderModel, Rig, shell
from tests.support import eventually

UPDATE = (
    "UPDATE service_configs SET config_json = ?, version = version + 1, request_id = 'theirs' WHERE service = 'svc'"
)


async def followed(rig: Rig, version: int) -> None:
    """Everything that is derived from the row has come to this version."""
    await eventually(lambda: rig.wanted_version() == version, what=f"publishing version {version}")
    await eventually(lambda: rig.cached_version == version, what=f"caching version {version}")
    await eventually(lambda: rig.snapshot_file.exists() and rig.snapshot().version == version, what="the snapshot")
    assert rig.shown["version"] == version
    assert rig.state.desired.version == version


async def test_a_live_change_reaches_everything_and_restarts_nobody(rig: Rig) -> None:
    await rig.serve()
    before = await rig.ready()
    accepted = await rig.change(version=1, volume=50)
    assert (accepted.version, accepted.live, accepted.restart) == (2, ("volume",), ())
    assert accepted.message == "Saved. The worker takes over while running: volume."
    await followed(rig, 2)
    assert rig.snapshot().config == {"engine": "piper", "volume": 50}
    assert read_cache(rig.lkg, HMAC)["payload"]["svc"] == {"engine": "piper", "volume": 50}
    assert rig.shown["config"]["volume"] == 50
    assert (rig.state.state, rig.state.instance, rig.state.restarts) == (Lifecycle.READY, before.instance, 0)


async def test_a_change_that_needs_a_restart_makes_one(rig: Rig) -> None:
    await rig.serve()
    before = await rig.ready()
    accepted = await rig.change(volume=50, engine="other")
    assert (accepted.live, accepted.restart) == (("volume",), ("engine",))
    assert accepted.message == "Saved. The worker restarts for: engine."
    after = await rig.until(Lifecycle.STARTING, instance=before.instance)
    assert after.reason == "restarted for engine"
    assert after.restarts == 1
    await followed(rig, 2)


async def test_nothing_different_is_no_version(rig: Rig) -> None:
    await rig.serve()
    before = await rig.ready()
    accepted = await rig.change(version=1, volume=100)  # the default, pinned: that is a change of the database layer
    assert (accepted.version, accepted.live, accepted.restart) == (2, (), ())
    accepted = await rig.change(version=2, volume=100)
    assert (accepted.version, accepted.revision) == (2, None)
    await followed(rig, 2)
    assert rig.state.instance == before.instance


async def test_stale_and_foreign_expectations_are_refused(rig: Rig) -> None:
    await rig.serve()
    await rig.change(request="first", volume=1)
    epoch = rig.shown["config_epoch"]
    for expected in ({"version": 1}, {"version": 7}, {"version": 0}, {"epoch": "0" * 8}, {"version": 2, "epoch": "x"}):
        with pytest.raises(StaleVersion) as refused:
            await rig.change(**expected, volume=2)  # type: ignore[arg-type]
        assert (refused.value.current, refused.value.config_epoch, refused.value.request_id) == (2, epoch, "first")
    assert (await rig.change(version=2, epoch=epoch, volume=2)).version == 3


async def test_a_change_that_is_refused_changes_nothing(make_rig: MakeRig) -> None:
    rig = await make_rig(environment={"ENGINE": "other"})
    await rig.serve()
    with pytest.raises(ConfigInvalid):
        await rig.change(volume=1000)
    with pytest.raises(OverriddenByEnvironment):
        await rig.change(engine="piper")
    assert rig.shown["version"] == 1
    await followed(rig, 1)
    assert rig.snapshot().config["engine"] == "piper"  # the reader overlays its own environment
    assert rig.shown["config"]["engine"] == "other"


async def test_what_the_manifest_sets_for_the_worker_overrides_too(rig: Rig) -> None:
    await rig.serve(environment={"VOLUME": "33"})
    assert rig.shown["config"]["volume"] == 33
    with pytest.raises(OverriddenByEnvironment, match="VOLUME"):
        await rig.change(volume=50)


async def test_a_retry_after_a_lost_answer_recognises_itself(make_rig: MakeRig) -> None:
    """The store is slow: the answer is lost, the change is not."""
    rig = await make_rig(database_timeout=0.5, busy_timeout=30.0)
    await rig.serve()
    before = await rig.ready()
    with rig.locked():
        with pytest.raises(OutcomeUnknown):
            await rig.change(version=1, request="mine", engine="other")
        assert rig.shown["version"] == 1
    # Nobody has to ask: the actor looks by itself, and what follows from the change is done.
    after = await rig.until(Lifecycle.STARTING, instance=before.instance)
    assert after.desired.version == 2
    await followed(rig, 2)
    with pytest.raises(StaleVersion) as refused:
        await rig.change(version=1, request="mine", engine="other")
    assert (refused.value.current, refused.value.request_id) == (2, "mine")


async def test_an_outcome_that_is_unknown_is_looked_up_before_the_next_change(make_rig: MakeRig) -> None:
    rig = await make_rig(database_timeout=0.5, busy_timeout=30.0)
    await rig.serve()
    with rig.locked():
        with pytest.raises(OutcomeUnknown):
            await rig.change(version=1, volume=1)
        # Not even what is held is believed: the caller is not told that 1 is current.
        with pytest.raises(ReadOnly):
            await rig.change(version=1, volume=2)
    await eventually(lambda: rig.shown["version"] == 2)
    assert (await rig.change(version=2, volume=3)).version == 3


async def test_a_store_that_cannot_be_written_is_said_and_comes_back(make_rig: MakeRig) -> None:
    rig = await make_rig(busy_timeout=0.0)
    await rig.serve()
    before = await rig.ready()
    with rig.locked(), pytest.raises(ReadOnly, match="held by another program"):
        await rig.change(version=1, volume=1)
    assert (await rig.change(version=1, volume=1)).version == 2
    await followed(rig, 2)
    assert rig.state.instance == before.instance


async def test_the_store_is_away_for_a_moment(rig: Rig) -> None:
    await rig.serve()
    rig.crash("database")
    assert (await rig.change(version=1, volume=1)).version == 2
    assert len(rig.refs["database"]) == 2


async def test_somebody_else_writes_to_the_store(rig: Rig) -> None:
    """It shows at the next change, and what they wrote is followed: published, cached, the worker restarted."""
    await rig.serve()
    before = await rig.ready()
    rig.write_as_foreigner(UPDATE, '{"engine": "other"}')
    with pytest.raises(StaleVersion) as refused:
        await rig.change(version=1, volume=50)
    # What they wrote is not what its checksum says, so it becomes a version of its own.
    assert refused.value.current == 2
    await rig.until(Lifecycle.STARTING, instance=before.instance)
    await followed(rig, 3)
    assert rig.snapshot().config == {"engine": "other", "volume": 100}


async def test_who_has_read_the_store_knows_more_than_we(rig: Rig) -> None:
    await rig.serve()
    await rig.ready()  # by now it has read the store itself
    rig.write_as_foreigner(UPDATE, '{"volume": 7}')
    accepted = await rig.change(version=3, volume=8)  # 3 is what the edit at version 2 will have become
    assert accepted.version == 4
    await followed(rig, 4)


async def test_a_row_that_is_gone_refuses_changes_and_harms_nobody(rig: Rig) -> None:
    await rig.serve()
    before = await rig.ready()
    rig.write_as_foreigner("DELETE FROM service_configs WHERE service = 'svc'")
    with pytest.raises(ReadOnly, match="'svc'"):
        await rig.change(version=1, volume=1)
    assert (rig.state.state, rig.state.instance) == (Lifecycle.READY, before.instance)
    assert len(rig.refs["svc"]) == 1


async def test_a_default_that_a_release_has_changed_is_a_new_version(make_rig: MakeRig) -> None:
    rig = await make_rig()
    await rig.serve()
    await rig.change(engine="other")
    await rig.close()
    await rig.open()
    await rig.serve(model=LouderModel)
    await followed(rig, 3)
    assert rig.snapshot().config == {"engine": "other", "volume": 120}
    with closing(sqlite3.connect(rig.folder / "config.db")) as connection:
        assert connection.execute("SELECT config_json FROM service_configs").fetchone() == ('{"engine":"other"}',)
        origins = connection.execute("SELECT origin FROM access_log ORDER BY id DESC LIMIT 1").fetchone()
    assert origins == ("migration",)
    # Once is enough.
    rig.crash("svc")
    await eventually(lambda: len(rig.refs["svc"]) == 2)
    await followed(rig, 3)


async def test_the_actors_own_crash_loses_nothing_and_doubles_nobody(rig: Rig) -> None:
    await rig.serve()
    before = await rig.ready()
    await rig.change(volume=50, api_key="s3cret-of-ours")
    await rig.until(Lifecycle.STARTING, instance=before.instance)
    running = await rig.ready()
    rig.crash("svc")
    await eventually(lambda: len(rig.refs["svc"]) == 2)
    await rig.change()
    # Its worker is none of its business: the next one takes it over as it is.
    after = await rig.until(Lifecycle.READY)
    assert (after.pid, after.instance) == (running.pid, running.instance)
    await followed(rig, 2)
    assert rig.shown["config"] == {"volume": 50, "engine": "piper", "api_key": "********", "pin": None}
    assert (await rig.change(version=2, volume=51)).version == 3


@pytest.mark.parametrize("kind", [Kind.EXTERNAL, Kind.CONFIG_ONLY])
async def test_a_service_without_a_worker_here(rig: Rig, kind: Kind) -> None:
    await rig.serve(kind=kind)
    assert (await rig.change(engine="other")).message == "Saved."
    await eventually(lambda: rig.wanted_version() == 2)
    assert rig.state.state == kind.value
    rig.report_health(True, "ready")
    assert (rig.state.pid, rig.state.reason) == (None, "")
    assert not rig.snapshot_file.exists()


async def test_many_writers_one_winner(rig: Rig) -> None:
    await rig.serve(SLEEPER)
    results = await asyncio.gather(
        *(rig.change(version=1, request=f"r{n}", volume=n) for n in range(8)), return_exceptions=True
    )
    assert sum(isinstance(result, StaleVersion) for result in results) == 7
    await followed(rig, 2)


async def test_changes_in_a_row_end_at_the_last(rig: Rig) -> None:
    await rig.serve(shell("echo up; exec sleep 600"))
    for n in range(30):
        await rig.change(version=n + 1, volume=n)
    await followed(rig, 31)
