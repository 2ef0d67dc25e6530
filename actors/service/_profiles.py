"""Profiles: what is set now, kept under a name, compared with what is set later, and activated again, all or nothing."""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from msgspec import structs

from actors.database import DatabaseActor, StoreUnavailable, UnknownService
from actors.runtime import Handle
from actors.service._actor import ServiceActor
from actors.service._group import change_together
from schemas.changes import ConfigChange, GroupAccepted, GroupRefused, ReadOnly
from schemas.plans import ChangePlan
from schemas.problems import ConfigInvalid, FieldError, unknown_keys
from schemas.profiles import (
    Activated,
    Activation,
    Author,
    Compared,
    NewProfile,
    Profile,
    ProfileChange,
    ProfileEntry,
    ServiceGone,
)
from schemas.service_schema import ServiceSchema
from schemas.types import ServiceName

Handles = Mapping[str, Handle[ServiceActor]]


class _Fitting(NamedTuple):
    """What of a profile today's manifest and models know, and what they do not."""

    changes: tuple[ConfigChange, ...]
    unknown_keys: dict[str, tuple[str, ...]]
    unknown_services: tuple[str, ...]


class Profiles:
    """Keeps profiles in the store, and has the services' actors judge and make what one holds.

    Every method raises `StoreUnavailable` where the store cannot be read, and `ReadOnly` where it cannot be written.
    """

    def __init__(
        self,
        services: Callable[[], Handles],
        database: Handle[DatabaseActor],
        schema_of: Callable[[str], ServiceSchema | None],
    ) -> None:
        self._services = services
        self._database = database
        self._schema_of = schema_of

    async def entries(self) -> tuple[ProfileEntry, ...]:
        """All of them by name."""
        return await self._database.ask(DatabaseActor.profiles)

    async def save(
        self, name: str, *, description: str | None, services: Collection[str] | None, replace: bool, author: Author
    ) -> ProfileEntry:
        """Save what these services have set now, or all of the manifest. What their models do not know is left out, and secrets.

        Raises:
            UnknownService: there is no such service. ProfileExists, TooManyProfiles.
        """
        wanted = {}
        for service in self._services() if services is None else services:
            schema = self._schema_of(service)
            if schema is None:
                raise UnknownService(ServiceName(service))
            wanted[ServiceName(service)] = schema.fields.keys() - schema.secret_keys
        new = NewProfile(name=name, description=description, services=wanted, replace=replace, author=author)
        try:
            return await self._database.ask(DatabaseActor.save_profile, new)
        except StoreUnavailable as error:
            raise ReadOnly(error.reason) from None

    async def compared(self, name: str, author: Author) -> Compared:
        """Give a whole profile, and what would be different if what fits of it were in force.

        Raises:
            UnknownProfile: there is none.
        """
        profile: Profile = await self._database.ask(DatabaseActor.profile, name)
        services = self._services()
        fitting = self._fitting(profile, services, Activation(name=name, drop_unknown=True, author=author))
        plans = [await services[each.service].ask(ServiceActor.plan, each) for each in fitting.changes]
        return Compared(self._shown(profile), _told(plans), fitting.unknown_keys, fitting.unknown_services)

    async def change(self, wanted: ProfileChange) -> ProfileEntry:
        """Rename it, or describe it anew.

        Raises:
            UnknownProfile: there is none. ProfileExists: another one has that name.
        """
        try:
            return await self._database.ask(DatabaseActor.change_profile, wanted)
        except StoreUnavailable as error:
            raise ReadOnly(error.reason) from None

    async def delete(self, name: str, author: Author) -> None:
        """Delete it.

        Raises:
            UnknownProfile: there is none.
        """
        try:
            await self._database.ask(DatabaseActor.delete_profile, name, author)
        except StoreUnavailable as error:
            raise ReadOnly(error.reason) from None

    async def activate(self, wanted: Activation, *, only_plan: bool) -> Activated:
        """Put what a profile holds in force, as one revision; or tell what that would do. Other services stay as they are.

        Everything is judged before anything is made, so that all that does not fit is told at once.

        Raises:
            UnknownProfile: there is none. What `change_together` raises.
        """
        profile: Profile = await self._database.ask(DatabaseActor.profile, wanted.name)
        services = self._services()
        fitting = self._fitting(profile, services, wanted)
        plans = []
        for change in fitting.changes:
            plan = await services[change.service].ask(ServiceActor.plan, change)
            unknown = () if wanted.drop_unknown else fitting.unknown_keys.get(change.service, ())
            plans.append(self._with_unknown(plan, unknown))
        reasons: dict[str, Exception] = {plan.service: ConfigInvalid(plan.errors) for plan in plans if plan.errors}
        if not wanted.drop_unknown:
            reasons.update((service, ServiceGone()) for service in fitting.unknown_services)
        unknowns = (fitting.unknown_keys, fitting.unknown_services)
        if only_plan:
            return Activated(GroupAccepted(None, {}), _told(plans), *unknowns, refused=bool(reasons))
        if reasons:
            raise GroupRefused(reasons)
        made = await change_together(services, self._database, fitting.changes)
        return Activated(made, (), *unknowns, refused=False)

    def _fitting(self, profile: Profile, services: Handles, wanted: Activation) -> _Fitting:
        changes, unknown, gone = [], {}, []
        for service, values in profile.settings.items():
            schema = self._schema_of(service)
            if schema is None or service not in services:
                gone.append(service)
                continue
            known = schema.fields.keys() - schema.secret_keys
            changes.append(_change(service, {key: each for key, each in values.items() if key in known}, wanted))
            if others := tuple(key for key in values if key not in known):
                unknown[service] = others
        return _Fitting(tuple(changes), unknown, tuple(gone))

    def _with_unknown(self, plan: ChangePlan, unknown: tuple[str, ...]) -> ChangePlan:
        """The plan, refused for what the model does not know."""
        schema = self._schema_of(plan.service)
        if not unknown or schema is None:
            return plan
        message = "It is a secret now, and no profile holds one; `drop_unknown` leaves it out."
        secrets = [FieldError(key, message, "misplaced_secret") for key in unknown if key in schema.secret_keys]
        strange = unknown_keys([key for key in unknown if key not in schema.fields], schema.keys)
        return structs.replace(
            plan,
            changes=(),
            restarts=(),
            errors=(*strange, *secrets, *plan.errors),
            message="This would be refused; nothing would change.",
        )

    def _shown(self, profile: Profile) -> Profile:
        """The profile without what was plain once and is a secret now."""
        settings = {}
        for service, values in profile.settings.items():
            schema = self._schema_of(service)
            hidden = frozenset() if schema is None else schema.secret_keys
            settings[service] = {key: value for key, value in values.items() if key not in hidden}
        return structs.replace(profile, settings=settings)


def _change(service: str, values: Mapping[str, object], wanted: Activation) -> ConfigChange:
    return ConfigChange(
        service=service,
        config=values,
        merge=False,
        layer=True,
        expected_version=None,
        expected_epoch=None,
        changed_by=wanted.author.name,
        origin="profile",
        request_id=wanted.author.request_id,
        reason=wanted.why(),
        address=wanted.author.address,
    )


def _told(plans: list[ChangePlan]) -> tuple[ChangePlan, ...]:
    return tuple(plan for plan in plans if plan.changes or plan.errors)
