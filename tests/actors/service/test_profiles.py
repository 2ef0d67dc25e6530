"""Profiles among real services and a real store: saved, compared, and put in force again, all or nothing."""

from typing import Annotated, Any, Literal

import orjson
import pytest
from pydantic import BaseModel, Field, SecretStr

from actors.database import DatabaseActor, UnknownService
from actors.runtime import Handle, Supervisor
from actors.service import Profiles, ServiceActor
from schemas.changes import ConfigChange, GroupRefused
from schemas.problems import ConfigInvalid
from schemas.profiles import Activated, Activation, Author, Compared, ServiceGone
from schemas.service_schema import ServiceSchema
from schemas.states import Kind
from tests.actors.service.support import NAME, Model, Rig

OTHER = "other"
SECRET = "c4nary-51b2"
ME = Author("me", "r-1", "127.0.0.1")


class SmallerModel(BaseModel):
    """The next release: one setting gone, one with other bounds, one that is a secret now."""

    volume: Annotated[int, Field(ge=0, le=50, json_schema_extra={"x-apply": "live"})] = 30
    engine: SecretStr | None = None


class WithoutEngine(BaseModel):
    """Another next release."""

    volume: Annotated[int, Field(ge=0, le=200, json_schema_extra={"x-apply": "live"})] = 100
    voice: Literal["a", "b"] = "a"


class Services:
    """Two services that are configuration alone, and profiles of them."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.handles: dict[str, Handle[ServiceActor]] = {NAME: rig.service, OTHER: Handle(OTHER, timeout=20.0)}
        self.models: dict[str, type[BaseModel]] = dict.fromkeys(self.handles, Model)
        self.profiles = Profiles(lambda: self.handles, rig.database, self._schema_of)

    def _schema_of(self, name: str) -> ServiceSchema | None:
        return ServiceSchema(name, self.models[name]) if name in self.models else None

    async def serve(self) -> None:
        for name in self.handles:
            await self._begin(name)

    async def _begin(self, name: str) -> None:
        await self.rig.serve(kind=Kind.CONFIG_ONLY, handle=self.handles[name], model=self.models[name])

    async def update(self, name: str, model: type[BaseModel]) -> None:
        """The next release has another model."""
        await self._end(name)
        self.models[name] = model
        await self._begin(name)

    async def leave(self, name: str) -> None:
        """It goes from the manifest, by a reload."""
        await self._end(name)
        del self.models[name]
        self.handles = {each: handle for each, handle in self.handles.items() if each != name}

    async def _end(self, name: str) -> None:
        root: Handle[Supervisor] = Handle("root", timeout=20.0)
        root.attach(self.rig.supervisor)
        await root.ask(Supervisor.remove, name)

    async def set(self, name: str, **config: Any) -> None:
        """A PATCH."""
        change = ConfigChange(
            service=name,
            config=config,
            merge=True,
            expected_version=None,
            expected_epoch=None,
            changed_by="me",
            origin="rest",
            request_id="r",
        )
        await self.handles[name].ask(ServiceActor.change, change)

    async def save(self, name: str, **options: Any) -> Any:
        return await self.profiles.save(
            name, **{"description": None, "services": None, "replace": False, "author": ME, **options}
        )

    async def compared(self, name: str) -> Compared:
        return await self.profiles.compared(name, ME)

    async def activate(self, name: str, *, plan: bool = False, drop: bool = False) -> Activated:
        return await self.profiles.activate(Activation(name=name, drop_unknown=drop, author=ME), only_plan=plan)

    async def revision(self) -> int:
        return (await self.rig.database.ask(DatabaseActor.load)).revision

    async def stored(self, name: str) -> Any:
        return dict((await self.rig.database.ask(DatabaseActor.load)).services[name].config)

    def shown(self, name: str, key: str) -> Any:
        return orjson.loads(self.rig.board.services[name].short.body)["config"][key]


@pytest.fixture
async def services(rig: Rig) -> Services:
    it = Services(rig)
    await it.serve()
    await it.set(NAME, volume=40, engine="other", api_key=SECRET)
    await it.set(OTHER, volume=50)
    return it


def errors(refused: GroupRefused) -> dict[str, list[str]]:
    return {
        service: [each.field for each in reason.errors] if isinstance(reason, ConfigInvalid) else []
        for service, reason in refused.reasons.items()
    }


async def test_what_was_set_is_in_force_again_as_one_revision(services: Services) -> None:
    saved = await services.save("Evening", description="quiet")
    assert saved.services == (NAME, OTHER)
    assert (await services.compared("Evening")).plans == ()
    await services.set(NAME, volume=90, engine=None, pin="1234")
    await services.set(OTHER, volume=None, engine="other")

    compared = await services.compared("Evening")
    assert compared.profile.settings == {NAME: {"volume": 40, "engine": "other"}, OTHER: {"volume": 50}}
    assert {plan.service: {each.key: (each.old, each.new) for each in plan.changes} for plan in compared.plans} == {
        NAME: {"volume": (90, 40), "engine": ("piper", "other")},
        OTHER: {"volume": (100, 50), "engine": ("other", "piper")},
    }
    before = await services.revision()
    planned = await services.activate("Evening", plan=True)
    assert (planned.plans, planned.refused, planned.made.revision) == (compared.plans, False, None)
    assert await services.revision() == before

    activated = await services.activate("Evening")
    assert activated.made.revision == before + 1
    assert list(activated.made.services) == [NAME, OTHER]
    assert (await services.stored(NAME), await services.stored(OTHER)) == (
        {"volume": 40, "engine": "other"},
        {"volume": 50},
    )
    # Secrets stay as they are, whatever they were then.
    assert (services.shown(NAME, "api_key"), services.shown(NAME, "pin")) == ("********", "********")
    assert (await services.activate("Evening")).made.revision is None


async def test_no_secret_and_no_mark_of_one_gets_into_a_profile(services: Services) -> None:
    await services.save("Evening")
    everything = (services.rig.folder / "config.db-wal").read_bytes() + (services.rig.folder / "config.db").read_bytes()
    assert SECRET.encode() not in everything
    compared = await services.compared("Evening")
    assert "api_key" not in compared.profile.settings[NAME]


async def test_only_the_services_that_are_named(services: Services) -> None:
    await services.save("One", services=[OTHER])
    await services.set(NAME, volume=1)
    await services.set(OTHER, volume=1)
    activated = await services.activate("One")
    assert list(activated.made.services) == [OTHER]
    assert (services.shown(NAME, "volume"), services.shown(OTHER, "volume")) == (1, 50)
    with pytest.raises(UnknownService):
        await services.save("Two", services=["nobody"])


async def test_what_an_older_model_knew_is_refused_by_name_or_left_out(services: Services) -> None:
    await services.save("Evening")
    await services.set(NAME, engine=None)
    await services.update(NAME, WithoutEngine)
    await services.set(OTHER, volume=1)
    before = await services.revision()

    compared = await services.compared("Evening")
    assert compared.unknown_keys == {NAME: ("engine",)}
    assert [plan.service for plan in compared.plans] == [OTHER]
    planned = await services.activate("Evening", plan=True)
    assert planned.refused
    assert {plan.service: [each.field for each in plan.errors] for plan in planned.plans} == {
        NAME: ["engine"],
        OTHER: [],
    }
    with pytest.raises(GroupRefused) as refused:
        await services.activate("Evening")
    assert errors(refused.value) == {NAME: ["engine"]}
    assert await services.revision() == before
    assert services.shown(OTHER, "volume") == 1

    assert not (await services.activate("Evening", plan=True, drop=True)).refused
    activated = await services.activate("Evening", drop=True)
    assert activated.unknown_keys == {NAME: ("engine",)}
    assert (services.shown(NAME, "volume"), services.shown(OTHER, "volume")) == (40, 50)
    # What is saved now fits again.
    await services.save("Evening", replace=True)
    assert (await services.compared("Evening")).unknown_keys == {}


async def test_everything_that_does_not_fit_is_told_at_once(services: Services) -> None:
    await services.set(NAME, volume=90)
    await services.save("Evening")
    await services.set(NAME, volume=20, engine=None)
    await services.update(NAME, SmallerModel)
    await services.leave(OTHER)

    compared = await services.compared("Evening")
    assert (compared.unknown_keys, compared.unknown_services) == ({NAME: ("engine",)}, (OTHER,))
    # What was plain once and is a secret now is not shown any more.
    assert compared.profile.settings == {NAME: {"volume": 90}, OTHER: {"volume": 50}}
    with pytest.raises(GroupRefused) as refused:
        await services.activate("Evening")
    assert errors(refused.value) == {NAME: ["engine", "volume"], OTHER: []}
    assert isinstance(refused.value.reasons[OTHER], ServiceGone)
    # A value that is out of bounds is not left out.
    with pytest.raises(GroupRefused) as refused:
        await services.activate("Evening", drop=True)
    assert errors(refused.value) == {NAME: ["volume"]}
    assert services.shown(NAME, "volume") == 20
    assert services.shown(NAME, "engine") is None


async def test_what_has_become_a_secret_stays_as_it_is(services: Services) -> None:
    await services.save("Evening")
    await services.set(NAME, volume=None)
    await services.update(NAME, SmallerModel)
    # The row still holds its plain value of before.
    assert (await services.stored(NAME))["engine"] == "other"
    await services.save("Now")
    assert (await services.rig.database.ask(DatabaseActor.profile, "Now")).settings[NAME] == {}

    with pytest.raises(GroupRefused) as refused:
        await services.activate("Evening")
    assert errors(refused.value) == {NAME: ["engine"]}
    await services.activate("Evening", drop=True)
    assert (services.shown(NAME, "volume"), services.shown(NAME, "engine")) == (40, None)


async def test_a_service_that_has_left_is_left_out_where_that_is_wanted(services: Services) -> None:
    await services.save("Evening")
    await services.set(NAME, volume=1)
    await services.leave(OTHER)
    activated = await services.activate("Evening", drop=True)
    assert (list(activated.made.services), activated.unknown_services) == ([NAME], (OTHER,))
    assert services.shown(NAME, "volume") == 40
