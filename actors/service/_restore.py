"""The way back: earlier settings of one service or all, as new versions, all or nothing."""

from collections.abc import Callable, Mapping

from actors.database import DatabaseActor, HistoryActor
from actors.runtime import Handle
from actors.service._actor import ServiceActor
from actors.service._group import change_together
from schemas.changes import ConfigChange, GroupAccepted
from schemas.restores import PastSettings, Restore, Restored
from schemas.service_schema import ServiceSchema


class Restorer:
    """Looks back, and has the services' actors make of it what their models allow today."""

    def __init__(
        self,
        services: Callable[[], Mapping[str, Handle[ServiceActor]]],
        database: Handle[DatabaseActor],
        history: Handle[HistoryActor],
        schema_of: Callable[[str], ServiceSchema | None],
    ) -> None:
        """`services` and `schema_of` are asked each time: a reload brings others."""
        self._services = services
        self._database = database
        self._history = history
        self._schema_of = schema_of

    async def restore(self, wanted: Restore, *, only_plan: bool) -> Restored:
        """Restore, or tell what that would do.

        It is judged against the versions that were current when it looked back: who changes one of the services meanwhile is not
        overwritten.

        Raises:
            NotReached, UnknownEntries, UnknownService: there is nothing like that to go back to.
            StoreUnavailable: the history cannot be read. What `change_together` raises.
        """
        if wanted.point is not None:
            past = await self._history.ask(HistoryActor.settings_at, wanted.service, wanted.point)
        else:
            assert wanted.service is not None
            past = await self._history.ask(HistoryActor.undone, wanted.service, wanted.entries)
        services = self._services()
        changes, left_out = [], {}
        for each in past:
            schema = self._schema_of(each.service)
            if schema is None or each.service not in services:
                continue
            changes.append(_change(wanted, each, schema))
            if gone := tuple(key for key in each.values if key not in schema.fields or key in schema.secret_keys):
                left_out[str(each.service)] = gone
        names = {change.service for change in changes}
        secrets = {str(each.service): each.secrets for each in past if each.secrets and each.service in names}
        if only_plan:
            plans = [await services[change.service].ask(ServiceActor.plan, change) for change in changes]
            told = tuple(plan for plan in plans if plan.changes or plan.errors)
            return Restored(GroupAccepted(None, {}), told, left_out, secrets)
        made = await change_together(services, self._database, changes)
        return Restored(made, (), left_out, secrets)


def _change(wanted: Restore, past: PastSettings, schema: ServiceSchema) -> ConfigChange:
    return ConfigChange(
        service=past.service,
        config={
            key: value for key, value in past.values.items() if key in schema.fields and key not in schema.secret_keys
        },
        merge=False,
        layer=True,
        expected_version=past.version,
        expected_epoch=past.config_epoch,
        changed_by=wanted.changed_by,
        origin="restore",
        request_id=wanted.request_id,
        reason=wanted.why(),
        address=wanted.address,
    )
