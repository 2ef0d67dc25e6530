"""The page for whoever runs the program says what is so: sentences, paths, links, and its commands for a backup."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.settings import VARIABLES
from tests.deploy.pages import DEPLOY, PAGE, ROOT, commands
from tests.deploy.test_unit import UNIT, keys
from tests.support import wait_until
from tests.system.program import Program, demo_manifest

TEXT = PAGE.read_text()
QUOTED = [line.removeprefix("> ") for line in TEXT.splitlines() if line.startswith("> ")]
_FORMAT = re.compile(r"%[-+ 0#]*[0-9.]*[a-z]")


def sentences(tree: ast.AST) -> Iterator[str]:
    """Each text of a module, with … for what is put in. Neighbouring literals are one text already."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield _FORMAT.sub("…", node.value)
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


@pytest.fixture(scope="module")
def said() -> list[str]:
    """Every text in the source of the program."""
    files = [file for room in ("supervisor", "api", "actors", "schemas") for file in (ROOT / room).rglob("*.py")]
    return [text for file in files for text in sentences(ast.parse(file.read_text()))]


def pieces(text: str) -> list[str]:
    return [piece.strip() for piece in text.split("…") if piece.strip(" :;")]


def found(quoted: str, said: list[str]) -> bool:
    """Whether the words between the … stand in one text of the source, in this order.

    A service's name in front is put there for all of them.
    """
    pattern = re.compile(".*".join(map(re.escape, pieces(quoted.removeprefix("…: ")))), re.DOTALL)
    return any(pattern.search(text) for text in said)


def test_there_is_enough_to_look_up() -> None:
    assert len(QUOTED) > 20


@pytest.mark.parametrize("quoted", QUOTED)
def test_each_sentence_is_the_programs(quoted: str, said: list[str]) -> None:
    assert found(quoted, said), f"nothing in the source says: {quoted}"


def test_a_sentence_that_nobody_says_is_noticed(said: list[str]) -> None:
    assert not found("… is taken by another programme; stop it", said)


def test_each_link_leads_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
        for line in TEXT.splitlines()
        if line.startswith("#")
    }
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        file, _, anchor = target.partition("#")
        if file:
            assert (PAGE.parent / file).is_file(), target
        else:
            assert anchor in headings, target


def test_each_variable_is_one() -> None:
    """Of what looks like an assignment in a settings file."""
    known = {variable.name for variable in VARIABLES}
    named = set(re.findall(r"`([A-Z][A-Z0-9_]{3,})(?:=[^`]*)?`", TEXT)) - {"SERVICE", "NAME", "SECRET"}
    assert named <= known, named - known


def test_each_file_of_the_release_is_there() -> None:
    for name in set(re.findall(r"deploy/([\w.-]+)", TEXT)):
        assert (DEPLOY / name).is_file(), name


def test_its_figures_are_the_units() -> None:
    service = {key: values[-1] for (section, key), values in keys(UNIT).items() if section == "Service"}
    assert service["TimeoutStopSec"] == "2min"
    assert "two minutes (`TimeoutStopSec`)" in TEXT
    assert service["RestartSec"] == "1"
    assert service["RestartMaxDelaySec"] == "30"
    assert f"/run/{service['RuntimeDirectory']}/" in TEXT
    assert f"/var/lib/{service['StateDirectory']}/config.db" in TEXT


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path / "installation", demo_manifest({"router": "router"}))
    yield made
    made.close()


def test_a_store_is_put_back_as_the_page_says(program: Program, tmp_path: Path) -> None:
    """The worker runs with the older settings again, although it had newer ones."""

    def as_here(name: str) -> str:
        script = commands(name)
        script = script.replace("/var/lib/tars", str(program.folder / "data"))
        script = script.replace("/run/tars", program.environment["RUNTIME_DIRECTORY"])
        script = script.replace("/root/", f"{tmp_path}/").replace("python3 ", f"{sys.executable} ")
        # Here is no systemd, and no such user.
        return re.sub(r"^systemctl .*$", "", script, flags=re.MULTILINE).replace("-o tars -g tars ", "")

    def shell(name: str) -> None:
        subprocess.run(["sh", "-eu", "-c", as_here(name)], check=True, timeout=30)

    def reports(version: int) -> Callable[[], bool]:
        def look() -> bool:
            with program.client() as client:
                reported = client.get("/api/services/router").json()["reported"] or {}
                return reported.get("version") == version and not reported.get("error")

        return look

    program.start()
    assert program.put("router", router_wake_ack_text="kept").json()["version"] == 2
    wait_until(reports(2), timeout=30, what="the report of version 2")
    shell("backup")
    assert program.put("router", router_wake_ack_text="forgotten").json()["version"] == 3
    wait_until(reports(3), timeout=30, what="the report of version 3")
    assert program.stop() == 0
    shell("restore")
    program.start()
    wait_until(reports(2), timeout=30, what="the report of the version that was put back")
    assert program.get("router")["config"]["router_wake_ack_text"] == "kept"
    assert program.stop() == 0


def test_shell_blocks_are_shell() -> None:
    sh = shutil.which("sh")
    assert sh is not None
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL):
        done = subprocess.run([sh, "-n", "-c", block], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, f"{block}{done.stderr}"
