"""A manifest read anew while the program runs: the plan, with every mistake that forbids it."""

import asyncio
from dataclasses import dataclass, replace

from schemas.manifest import Change, Differences, Service, differences
from schemas.service_schema import ServiceSchema
from schemas.status import ReloadRefused
from supervisor._services import Services, ServicesRefused, load_services
from supervisor.boot import Boot


@dataclass(frozen=True)
class Plan:
    """What is to be done, and what the program goes by afterwards."""

    differences: Differences
    after: Boot

    def having(self, *changes: Change) -> list[str]:
        """Give the services with one of these changes, in the manifest's order."""
        return [str(each.service) for each in self.differences.services if each.change in changes]

    @property
    def logins(self) -> bool:
        """Other users may log in at the broker, or with other rights."""
        return any(
            each.change in {Change.ADDED, Change.REMOVED} or {"kind", "health_topic"} & set(each.keys)
            for each in self.differences.services
        )

    def text(self) -> str:
        """For the log."""
        told = [
            f"{each.service}: {each.change} {', '.join(each.keys)}".rstrip()
            for each in self.differences.services
            if each.change is not Change.UNCHANGED
        ]
        if self.differences.concurrent_starts:
            told.append(f"concurrent_starts: {self.after.manifest.concurrent_starts or 'as many as cores'}")
        return "; ".join(told)


async def read_plan(boot: Boot) -> Plan:
    """Read the manifest and the models that it names. Nothing is changed by that.

    Raises ReloadRefused with every mistake.
    """
    settings = boot.settings
    try:
        # Files, and modules that are imported.
        found = await asyncio.get_running_loop().run_in_executor(
            None, load_services, settings.services_file, settings.environment, settings.sources
        )
    except ServicesRefused as refused:
        raise ReloadRefused(refused.lines) from None
    return planned(boot, found)


def planned(boot: Boot, found: Services) -> Plan:
    """The plan that makes `found` of what `boot` goes by."""
    what = differences(boot.manifest, found.manifest)
    schemas: dict[str, ServiceSchema] = dict(found.schemas)
    for each in what.services:
        # A file of a model that changed is no change of the manifest: it counts from the next start of the program on.
        if each.change in {Change.POLICY, Change.UNCHANGED}:
            schemas[each.service] = boot.schemas[each.service]
    return Plan(what, replace(boot, manifest=found.manifest, schemas=schemas, warnings=found.warnings))


def by_name(boot: Boot) -> dict[str, Service]:
    return {str(service.name): service for service in boot.manifest.services}
