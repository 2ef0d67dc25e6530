"""The helpers themselves: a leak fails the test that leaked, and the broker does what a test asks."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import MosquittoFactory
from tests.support import needs

pytest_plugins = ["pytester"]

LEAKY = """
import asyncio, os, subprocess, sys, threading
from actors.holder import program
kept = []

def test_thread():
    threading.Thread(target=threading.Event().wait, name="forgotten", daemon=True).start()

def test_process():
    kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

def test_descriptor():
    kept.append(open("/dev/null"))

async def test_task():
    kept.append(asyncio.get_running_loop().create_task(asyncio.Event().wait()))

def test_holder(tmp_path):
    tmp_path.chmod(0o700)
    command = [sys.executable, "-I", "-S", program.__file__, tmp_path]
    assert subprocess.run(command, stdout=subprocess.PIPE, timeout=30).stdout == b"ready"  # it goes into the background

async def test_clean():
    task = asyncio.get_running_loop().create_task(asyncio.Event().wait())
    task.cancel()
    await asyncio.to_thread(sum, [1, 2])

def test_clean_too():
    assert subprocess.run([sys.executable, "-c", ""]).returncode == 0
"""


CONFTEST = """
import tests.conftest
from tests.conftest import *
from tests.conftest import _watched_tasks
tests.conftest.SETTLE = 0.3
"""


def test_a_leak_fails_the_test_that_leaked(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    # The client's tests are a package of that name too, and come first on the path of an editable install.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makepyfile(LEAKY)
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\nanyio_mode = auto\n")
    result = pytester.runpytest_subprocess(f"--rootdir={pytester.path}", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=7, errors=5)
    for line in (
        "*thread forgotten*",
        "*process * (sleeping)*",
        "*holder * of *test_holder0*",
        "*descriptor * of /dev/null*",
        "*Task pending*",
    ):
        result.stdout.fnmatch_lines([line])


def test_missing_program_skips_but_fails_under_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed"):
        needs("no-such-program")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        needs("no-such-program")


def test_mosquitto_restarts_on_its_port(mosquitto: MosquittoFactory) -> None:
    publish, subscribe = needs("mosquitto_pub"), needs("mosquitto_sub")
    broker = mosquitto(users={"alice": "secret"}, acl="user alice\ntopic readwrite #\n", persistence=True)
    login = ["-h", "127.0.0.1", "-p", str(broker.port), "-t", "a/b", "-u", "alice", "-P"]
    subprocess.run([publish, *login, "secret", "-r", "-q", "1", "-m", "kept"], check=True, timeout=30)
    refused = subprocess.run([publish, *login, "wrong", "-m", "x"], check=False, timeout=30, stderr=subprocess.DEVNULL)
    assert refused.returncode != 0

    port = broker.port
    broker.restart()
    assert broker.port == port
    command = [subscribe, *login, "secret", "-C", "1", "-W", "25"]
    assert subprocess.run(command, check=True, timeout=30, stdout=subprocess.PIPE).stdout == b"kept\n"
    broker.kill()
    assert not broker.running
