"""What a service's actor works with: the others' handles, and what is the same for all services."""

import asyncio
import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from actors.board import Board
from actors.bridge import BridgeActor
from actors.cache import CacheActor, CacheContents
from actors.database import DatabaseActor
from actors.events import Events
from actors.files import PUBLIC_FILE, is_private, write_atomically
from actors.health import HealthActor
from actors.holding import Holding
from actors.output import Outputs
from actors.runtime import Handle
from actors.service._files import make_private
from actors.service._fleet import Fleet
from actors.signer import SignerActor
from actors.vault import Vault
from schemas.manifest import Service


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Given by the wiring to every service's actor.

    `environment` is the supervisor's own with `.env` under it: overrides of settings come from there, and what a
    manifest passes on. `mqtt_url(service)` is the broker's address with that worker's own login.
    """

    board: Board
    database: Handle[DatabaseActor]
    cache: Handle[CacheActor]
    contents: CacheContents
    """What the cache's file shall hold; `cache` is told when it has changed."""
    signer: Handle[SignerActor]
    bridge: Handle[BridgeActor]
    health: Handle[HealthActor]
    """Told of secrets that cannot be opened."""
    vault: Vault
    environment: Mapping[str, str] = field(repr=False)
    mqtt_url: Callable[[str], str]
    public_keys: Path
    """PEM file with every trusted public key."""
    public_pem: str
    """What is in that file."""
    runtime_folder: Path
    data_folder: Path
    holding: Holding
    """Starts processes, and has those that an earlier supervisor started."""
    outputs: Outputs
    fleet: Fleet
    events: Events
    believes_reports: bool = False
    """Whether nobody but a worker can write to its health topic, so that what comes there may lead to a restart."""
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the owner asked a second time to end: workers are killed instead of waited for."""

    @property
    def instances(self) -> Path:
        return self.runtime_folder / "instances"

    def restore_folders(self) -> None:
        """Make anew what all workers need and is not there: a login manager removes a user's runtime folder while we run.

        Blocks for small files. Raises OSError, also where somebody else has made the folder meanwhile.
        """
        make_private(self.instances)
        self.holding.restore()
        if not is_private(self.runtime_folder.stat()):
            raise PermissionError(errno.EPERM, "it is not this user's alone", str(self.runtime_folder))
        if not self.public_keys.exists():
            write_atomically(self.public_keys, self.public_pem.encode("ascii"), PUBLIC_FILE)

    def environment_of(self, service: Service) -> Mapping[str, str]:
        """The variables that override the settings of this service's worker: what its manifest sets wins."""
        return {**self.environment, **service.environment} if service.environment else self.environment
