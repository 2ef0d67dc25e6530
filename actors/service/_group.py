"""Changes of several services in one transaction: one revision, all or nothing."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from actors.database import DatabaseActor, StoreUnavailable, UnknownService, VersionMismatch
from actors.runtime import ActorDown, Handle, MailboxFull, OutcomeUnknown, Rejected
from actors.service._actor import ServiceActor
from actors.service._settings import Judged, commit_request
from schemas.changes import (
    ChangeAccepted,
    ConfigChange,
    GroupAccepted,
    GroupRefused,
    OverriddenByEnvironment,
    ReadOnly,
    StaleVersion,
)
from schemas.problems import ConfigInvalid
from schemas.records import Committed
from schemas.types import ServiceName

ATTEMPTS = 5
"""How often it is judged anew where somebody else was faster; who names versions is told at once."""


async def change_together(
    services: Mapping[str, Handle[ServiceActor]], database: Handle[DatabaseActor], changes: Sequence[ConfigChange]
) -> GroupAccepted:
    """Make all of these changes, of one service each and asked for by one request, or none.

    Each service's actor judges its own; the version checks inside the transaction are the only lock, so that groups and single
    changes never wait for each other: the slower one is judged anew, or refused where it has named what it has seen. The actors
    then follow what is on disk. Where this ends in between (a crash, a cancellation), they read it from there.

    Raises:
        GroupRefused: with the reason of each service that refuses: ConfigInvalid, OverriddenByEnvironment or StaleVersion.
        ReadOnly: the store cannot be written.
        Rejected: an actor was not there, and nothing was changed. OutcomeUnknown: it may have been; reading tells.
    """
    for _ in range(ATTEMPTS):
        judged = await _judge(services, changes)
        made = [(change, each) for change, each in zip(changes, judged, strict=True) if each.change is not None]
        if not made:
            return GroupAccepted(None, {})
        try:
            committed = await _commit(services, database, made)
        except VersionMismatch as error:
            _doubt(services, [change for change, _ in made])
            slow = next(change for change in changes if change.service == error.service)
            if slow.expected_version is None:
                continue
            stale = StaleVersion(error.expected, error.current, error.config_epoch, error.request_id)
            raise GroupRefused({error.service: stale}) from None
        return GroupAccepted(committed.revision, await _told(services, made, committed))
    raise ReadOnly("Others change these services faster than this can be judged. Nothing was changed; try it again.", 1)


async def _judge(services: Mapping[str, Handle[ServiceActor]], changes: Sequence[ConfigChange]) -> list[Judged]:
    judged, reasons = [], {}
    for change in changes:
        try:
            judged.append(await services[change.service].ask(ServiceActor.judge, change))
        except (ConfigInvalid, OverriddenByEnvironment, StaleVersion) as error:
            reasons[change.service] = error
    if reasons:
        raise GroupRefused(reasons)
    return judged


async def _commit(
    services: Mapping[str, Handle[ServiceActor]],
    database: Handle[DatabaseActor],
    made: Sequence[tuple[ConfigChange, Judged]],
) -> Committed:
    records = tuple(judged.change for _, judged in made if judged.change is not None)
    try:
        committed: Committed = await database.ask(DatabaseActor.commit, commit_request(made[0][0], records))
    except (VersionMismatch, Rejected):
        raise
    except StoreUnavailable as error:
        raise ReadOnly(error.reason) from None
    except UnknownService as error:
        raise ReadOnly(f"{error}; somebody has removed its row. Start the supervisor again to make a new one") from None
    except BaseException:
        # Cancelled, too: the store goes on with it.
        _doubt(services, [change for change, _ in made])
        raise
    return committed


async def _told(
    services: Mapping[str, Handle[ServiceActor]], made: Sequence[tuple[ConfigChange, Judged]], committed: Committed
) -> dict[str, ChangeAccepted]:
    accepted: dict[str, ChangeAccepted] = {}
    left = [change for change, _ in made]
    try:
        for change, judged in made:
            try:
                accepted[change.service] = await services[change.service].ask(
                    ServiceActor.take, change, judged, committed
                )
            except (Rejected, OutcomeUnknown):
                # Its next actor reads it; what was saved is saved.
                _doubt(services, [change])
                version, epoch = committed.versions[ServiceName(change.service)], committed.config_epoch
                decision = judged.decision
                accepted[change.service] = ChangeAccepted(
                    version, epoch, committed.revision, decision.live, decision.restart, "Saved."
                )
            left.remove(change)
    finally:
        _doubt(services, left)
    return accepted


def _doubt(services: Mapping[str, Handle[ServiceActor]], changes: Sequence[ConfigChange]) -> None:
    for change in changes:
        with suppress(ActorDown, MailboxFull):
            services[change.service].tell(ServiceActor.doubt)
