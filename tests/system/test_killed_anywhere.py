"""The supervisor is killed at random instants of spawns, ends and its own start: nobody is doubled, orphaned or lost."""

import contextlib
import random
import time
from collections import defaultdict
from collections.abc import Callable

import pytest

from tests.support import environment_of, wait_until
from tests.system.program import Program
from tests.system.test_adoption import holder_of
from tests.system.test_worker_life import worker

Make = Callable[..., Program]

NONE = '{ kind = "none" }'
QUICK = "{ first = 0.01, max = 0.01 }"

# The first stays; the second comes and goes all the time, and leaves a child behind each time that has left its session.
STEADY = "import time\nprint('up')\ntime.sleep(600)\n"
LEAVES = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(600)\ntime.sleep(0.02)\nos._exit(1)\n"

MANIFEST = worker("router", STEADY, readiness=NONE) + worker("stt-worker", LEAVES, readiness=NONE, backoff=QUICK)


def instances(program: Program) -> dict[str, set[str]]:
    """Of each service, those of which there is any process."""
    found: dict[str, set[str]] = defaultdict(set)
    for process in program.processes():
        # It may end, or become another program, while it is looked at.
        with contextlib.suppress(OSError, KeyError):
            environment = environment_of(process.pid)
            found[environment["TARS_SERVICE"]].add(environment["TARS_INSTANCE"])
    return found


def pid_of(program: Program, service: str) -> int | None:
    return next((process.pid for process, name in program.marked() if name == service), None)


def kill_and_look(program: Program, seed: int, rounds: int) -> None:
    dice = random.Random(seed)
    program.start()
    steady, broker = pid_of(program, "router"), pid_of(program, "embedded-broker")
    for number in range(rounds):
        time.sleep(dice.uniform(0.0, 0.8))  # the instant of the cut, not a synchronisation
        program.kill()
        found = instances(program)
        doubled = {name: names for name, names in found.items() if len(names) > 1}
        assert not doubled, f"round {number}: {doubled}"
        assert pid_of(program, "router") == steady, f"round {number}"
        assert pid_of(program, "embedded-broker") == broker, f"round {number}"
        program.launch()
    wait_until(lambda: "REST" in program.stdout, timeout=60, what="the summary")
    holder = holder_of(program)
    assert program.stop() == 0
    assert program.processes() == []
    wait_until(lambda: not holder.is_running(), what="the holder's end")


def test_thirty_kills(program: Make) -> None:
    kill_and_look(program(MANIFEST), seed=20261120, rounds=30)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_three_hundred_kills(program: Make) -> None:
    kill_and_look(program(MANIFEST), seed=1, rounds=300)


def test_a_holder_killed_at_random_instants(program: Make) -> None:
    dice = random.Random(4)
    supervised = program(MANIFEST).start()
    for number in range(6):
        time.sleep(dice.uniform(0.0, 0.3))  # as above
        before = pid_of(supervised, "router")
        holder_of(supervised).kill()
        wait_until(
            lambda before=before: pid_of(supervised, "router") not in {before, None},  # type: ignore[misc]
            what=f"the next router, round {number}",
        )
        wait_until(lambda: pid_of(supervised, "embedded-broker") is not None, what="the next broker")
        doubled = {name: names for name, names in instances(supervised).items() if len(names) > 1}
        assert not doubled, f"round {number}: {doubled}"
    assert supervised.stop() == 0
    assert supervised.processes() == []
