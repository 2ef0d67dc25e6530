"""What a start imports, and what it puts off, in an interpreter of its own."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import free_port

NOT_NEEDED = {
    "aiomqtt",
    "amqtt",
    "click",
    "email.message",
    "h11",
    "importlib.abc",
    "importlib.resources",
    "litestar.plugins.pydantic",
    "multiprocessing",
    "paho",
    "pydantic.networks",
    "pydantic.v1",
    "rich",
    "structlog.twisted",
    "tars_config.control",
    "tars_config.library",
    "tars_config.ratchet",
    "transitions",
    "uvicorn.main",
    "websockets",
    "zipfile",
}
PUT_OFF = {
    "bz2", "ctypes", "difflib", "html.entities", "importlib.metadata", "logging.config", "lzma", "pdb", "pickle",
    "sysconfig", "uvicorn",
    "yaml",
}  # fmt: skip

# What is put off is found, but not executed: `type` does not wake it.
RUN = """
import atexit, json, sys
from supervisor._startup import PUT_OFF
from supervisor.main import main

def tell():
    asleep = [name for name in PUT_OFF if type(sys.modules.get(name)).__name__ == "_Later"]
    print(json.dumps({"loaded": sorted(set(sys.modules) - set(asleep)), "asleep": asleep}))

atexit.register(tell)
sys.exit(main(["run"]))
"""


def python(script: str, folder: Path, **environ: str) -> "subprocess.Popen[bytes]":
    environ = {"PATH": os.environ["PATH"], "RUNTIME_DIRECTORY": str(folder / "run"), **environ}
    return subprocess.Popen([sys.executable, "-c", script], cwd=folder, env=environ, stdout=subprocess.PIPE)


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> dict[str, set[str]]:
    """What a whole start, a worker included, has loaded, and what it has put off."""
    folder = tmp_path_factory.mktemp("start")
    (folder / "services.toml").write_text(
        '[services.router]\ncommand = ["cat"]\n\n[services.tts-worker]\nkind = "config-only"\n'
    )
    broker = f"mqtt://127.0.0.1:{free_port()}"
    process = python(RUN, folder, CONFIG_API_PORT="0", MQTT_URL=broker)
    try:
        assert process.stdout is not None
        deadline = time.monotonic() + 60
        while b"ctrl-C ends it" not in (line := process.stdout.readline()):
            assert line, "it ended before it was up"
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait(30)
    assert process.returncode == 0
    told = json.loads(out.splitlines()[-1])
    return {name: set(modules) for name, modules in told.items()}


@pytest.mark.parametrize("module", sorted(NOT_NEEDED))
def test_a_start_does_without(start, module):
    assert module not in start["loaded"]


@pytest.mark.parametrize("module", sorted(PUT_OFF))
def test_a_start_puts_off(start, module):
    assert module in start["asleep"]


def call(script: str, folder: Path) -> str:
    process = python(script, folder)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return out.decode().strip()


SHORT = "from supervisor._startup import short_start, _Later\nimport gc, sys, threading\n"


def test_what_is_put_off_is_whole_when_it_is_used(tmp_path):
    script = f"""{SHORT}
with short_start():
    import yaml, uvicorn.config, uvicorn.lifespan.off, logging.config, uvicorn
    assert type(uvicorn) is _Later
    assert uvicorn.config.Config.__module__ == "uvicorn.config"
    assert type(uvicorn) is _Later, "a submodule does not wake it"
from uvicorn import Server
assert uvicorn.Server is Server
assert type(uvicorn) is not _Later
assert yaml.safe_load("[1]") == [1]
assert logging.config.dictConfig
assert not hasattr(yaml, "no_such_name")
print(uvicorn.__version__ is not None)
"""
    assert call(script, tmp_path) == "True"


def test_threads_that_wake_a_module_at_once_all_find_it_whole(tmp_path):
    script = f"""{SHORT}
with short_start():
    import yaml
sys.setswitchinterval(1e-6)
found, gate = [], threading.Barrier(8)
def look():
    gate.wait(30)
    found.append(yaml.safe_load)
threads = [threading.Thread(target=look) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join(30)
print(len(found), len(set(found)))
"""
    assert call(script, tmp_path) == "8 1"


def test_a_module_that_cannot_be_executed_says_so_each_time(tmp_path):
    (tmp_path / "yaml.py").write_text("raise RuntimeError('broken')\n")
    script = f"""{SHORT}
with short_start():
    import yaml
for _ in range(2):
    try:
        yaml.dump
    except RuntimeError as error:
        print(error)
"""
    assert call(script, tmp_path).split() == ["broken"] * 2


def test_a_version_is_found_without_waking_what_reads_metadata(tmp_path):
    script = f"""{SHORT}
with short_start():
    import importlib.metadata
    from importlib.metadata import entry_points, version
    names = ("litestar", "pydantic", "Typing.Extensions", "tars-supervisor")
    versions = [version(name) for name in names]
    assert type(importlib.metadata) is _Later
    try:
        version("no-such-distribution")
    except importlib.metadata.PackageNotFoundError:
        pass
    assert type(importlib.metadata) is not _Later
    assert versions == [importlib.metadata.version(name) for name in names]
    assert version is not importlib.metadata.version and version("litestar") == versions[0]
    print(entry_points() == importlib.metadata.entry_points())
"""
    assert call(script, tmp_path) == "True"


def test_a_library_of_the_system_is_loaded_when_it_is_called(tmp_path):
    script = f"""{SHORT}
with short_start():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    assert type(ctypes) is _Later
import os
assert libc.getpid() == os.getpid()
assert type(ctypes) is not _Later
assert libc.close(-1) == -1
print(ctypes.get_errno())
"""
    assert call(script, tmp_path) == str(errno.EBADF)


def test_imports_and_collections_are_as_before_after_the_end(tmp_path):
    script = f"""{SHORT}
before = list(sys.meta_path)
try:
    with short_start():
        assert not gc.isenabled()
        raise ValueError
except ValueError:
    pass
assert gc.isenabled() and sys.meta_path == before
import yaml
print(type(yaml) is not _Later)
"""
    assert call(script, tmp_path) == "True"
