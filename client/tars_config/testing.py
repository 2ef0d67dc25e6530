"""For a worker's own tests: everything that a supervisor gives a worker, in a folder, without a broker.

supervisor = TestSupervisor(tmp_path, "stt-worker", {"vad_threshold": 0.5})
async with ConfigLibrary("stt-worker", surroundings=supervisor.surroundings()) as library:
    ...
    await supervisor.deliver(library, {"vad_threshold": 0.7})
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tars_config import control, wire
from tars_config._surroundings import Surroundings
from tars_config.control import ControlSignal
from tars_config.library import ConfigLibrary
from tars_config.wire import SignedUpdate


class TestSupervisor:
    """Holds a signing key, counts versions, and keeps snapshot, public key and secrets as files."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    def __init__(
        self,
        directory: Path,
        service: str,
        config: Mapping[str, Any],
        *,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self.service = service
        self.config = dict(config)
        self.version = 1
        self.config_epoch = str(uuid.uuid4())
        self.private_key = Ed25519PrivateKey.generate()
        self.snapshot = directory / "snapshot.json"
        self.public_keys = directory / "public-keys.pem"
        self.state_directory = directory / "state"
        self.credentials_directory = directory / "credentials"
        self.state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.credentials_directory.mkdir(mode=0o700, exist_ok=True)
        public = self.private_key.public_key()
        self.public_keys.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        for key, value in (secrets or {}).items():
            self.set_secret(key, value)
        self.write_snapshot()

    def environment(self) -> dict[str, str]:
        """Give the variables for a worker in a process of its own."""
        return {
            "TARS_SERVICE": self.service,
            "TARS_INSTANCE": "test",
            "TARS_CONFIG_SNAPSHOT": str(self.snapshot),
            "TARS_CONFIG_PUBLIC_KEYS": str(self.public_keys),
            "TARS_STATE_DIRECTORY": str(self.state_directory),
            "CREDENTIALS_DIRECTORY": str(self.credentials_directory),
        }

    def surroundings(self, **overrides: str) -> Surroundings:
        """Give what a library in this process needs; `overrides` are further environment variables."""
        return Surroundings.from_environment(self.environment() | overrides)

    def set_secret(self, key: str, value: str) -> None:
        """Set a secret; a worker sees it with the next version."""
        (self.credentials_directory / key).write_text(value)

    def sign(self, *, issued_at: datetime | None = None) -> SignedUpdate:
        """Sign the present configuration."""
        return wire.sign(
            self.private_key,
            service=self.service,
            config=self.config,
            version=self.version,
            config_epoch=self.config_epoch,
            issued_at=issued_at or datetime.now(UTC),
        )

    def sign_control(
        self, command: str = control.RESTART, *, reason: str = "", issued_at: datetime | None = None
    ) -> ControlSignal:
        """Sign a control signal."""
        return control.sign(
            self.private_key,
            service=self.service,
            command=command,
            reason=reason,
            config_epoch=self.config_epoch,
            version=self.version,
            issued_at=issued_at or datetime.now(UTC),
        )

    def write_snapshot(self) -> None:
        """Write what a worker that starts now is to find."""
        self.snapshot.write_bytes(self.sign().encode())

    def start_new_epoch(self) -> None:
        """Do what a rebuild of the store does: another epoch, a version above the highest known."""
        self.config_epoch = str(uuid.uuid4())
        self.version += 1

    async def deliver(self, library: ConfigLibrary, changes: Mapping[str, Any] | None = None) -> None:
        """Change settings, send the next version as the broker would, and wait until the callback has had it.

        The snapshot is left alone: call `write_snapshot` before a restart that is to find the change.
        """
        self.config |= changes or {}
        self.version += 1
        library.receive(self.sign().encode())
        await library.settle()

    async def send_control(self, library: ConfigLibrary, command: str = control.RESTART, reason: str = "") -> None:
        """Send a control signal as the broker would, and wait until the handler has had it.

        Without a handler, `restart` ends this very process.
        """
        library.receive_control(self.sign_control(command, reason=reason).encode())
        await library.settle()
