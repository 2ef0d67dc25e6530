"""A start that cannot be is refused with one clear sentence each, and leaves nothing behind."""

import contextlib
import json
import os
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.program import Program, config_only_manifest, demo_manifest

Make = Callable[..., Program]
ONE = config_only_manifest(1)


def refused(supervised: Program) -> str:
    """Start it; what it says on standard error, which is no traceback."""
    supervised.launch()
    assert supervised.wait() == 2, supervised.stderr
    assert "Traceback" not in supervised.stderr
    assert supervised.processes() == []
    return supervised.stderr


def test_a_port_that_is_taken(program: Make) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(program(ONE, CONFIG_API_PORT=str(port)))
    assert f"port {port}" in said
    assert "CONFIG_API_PORT" in said


def test_a_broker_port_that_is_taken(program: Make) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(program(ONE, MQTT_URL=f"embedded://127.0.0.1:{port}"))
    assert str(port) in said
    assert "MQTT_URL" in said


def test_a_manifest_with_mistakes_names_file_and_line(program: Make) -> None:
    supervised = program('[services.router]\nkind = "proces"\ncomand = ["x"]\n')
    said = refused(supervised)
    assert "services.toml:2" in said
    assert "services.toml:3" in said
    assert 'did you mean "command"' in said
    assert not (supervised.folder / ".env").exists()
    assert not (supervised.folder / "data").exists()


def test_a_manifest_that_is_not_there(program: Make) -> None:
    assert "SERVICES_FILE" in refused(program(ONE, SERVICES_FILE="nowhere.toml"))


def test_an_environment_file_with_a_mistake(program: Make) -> None:
    supervised = program(ONE)
    (supervised.folder / ".env").write_text("CONFIG_API_PORT=8081\nLOG_LEVEL loud\n")
    (supervised.folder / ".env").chmod(0o600)
    del supervised.environment["CONFIG_API_PORT"]
    assert ".env:2" in refused(supervised)


def test_a_folder_that_cannot_be_written(program: Make, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    said = refused(program(ONE, CONFIG_DB_PATH=str(blocked / "data" / "config.db")))
    assert str(blocked) in said
    assert "CONFIG_DB_PATH" in said


def test_a_second_supervisor_in_the_same_folder(program: Make) -> None:
    first = program(ONE).start()
    pid = first.process.pid if first.process else 0
    second = Program(first.folder, ONE)
    second.launch()
    assert second.wait() == 2
    assert f"pid {pid}" in second.stderr
    assert first.get("service-000")["version"] == 1
    assert first.stop() == 0


def test_a_missing_key_is_named_while_a_store_exists(program: Make) -> None:
    supervised = program(ONE).start()
    assert supervised.stop() == 0
    env = supervised.folder / ".env"
    env.write_text("".join(line for line in env.read_text().splitlines(keepends=True) if "MASTER_KEY" not in line))
    assert "CONFIG_MASTER_KEY_BASE64" in refused(supervised)


def test_a_store_that_was_lost_is_not_silently_begun_anew(program: Make) -> None:
    supervised = program(ONE).start()
    assert supervised.stop() == 0
    for part in supervised.folder.glob("data/config.db*"):
        part.unlink()
    said = refused(supervised)
    assert "config.db" in said
    assert "backup" in said


def test_a_store_that_was_emptied_is_not_silently_begun_anew(program: Make) -> None:
    supervised = program(ONE).start()
    supervised.put("service-000", router_wake_ack_text="kept")
    assert supervised.stop() == 0
    cache = supervised.folder / "data" / "config.lkg.json"
    wanted = json.loads(cache.read_bytes())["payload"]["payload"]
    store = supervised.folder / "data" / "config.db"
    store.write_bytes(b"")
    assert "backup" in refused(supervised)
    for sidecar in supervised.folder.glob("data/config.db*"):
        sidecar.unlink()
    with contextlib.closing(sqlite3.connect(store)) as empty:
        empty.execute("VACUUM")
    assert "backup" in refused(supervised)
    assert json.loads(cache.read_bytes())["payload"]["payload"] == wanted


def test_a_setting_in_the_environment_that_is_out_of_range(program: Make) -> None:
    said = refused(program(demo_manifest({"tts-worker": "tts"}), VOLUME_PERCENT="240"))
    assert "VOLUME_PERCENT" in said
    assert "0 to 200" in said


def test_check_says_the_same_and_changes_nothing(program: Make) -> None:
    supervised = program('[services.router]\nkind = "proces"\n')
    before = sorted(supervised.folder.iterdir())
    supervised.environment["PATH"] = os.environ["PATH"]
    process = supervised.launch_command("check")
    assert process.returncode == 2
    assert b"services.toml:2" in process.stderr
    assert sorted(supervised.folder.iterdir()) == before


@pytest.mark.parametrize("command", ["--version", "--help"])
def test_the_program_introduces_itself(program: Make, command: str) -> None:
    process = program(ONE).launch_command(command)
    assert process.returncode == 0
    assert b"tars-supervisor" in process.stdout
