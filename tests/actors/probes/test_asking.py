"""Probes that ask: real servers and real processes; whatever the answer, nothing is left open."""

import asyncio
import datetime as dt
import os
import ssl
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from actors.process import Command
from schemas.manifest import ExecProbe, HttpProbe, TcpProbe
from tests.actors.probes.support import Answer, probing, serving
from tests.support import eventually, free_port


def quick(spec: Any, **values: Any) -> Any:
    """Bounds of the manifest are for boards."""
    return spec.model_copy(
        update={"interval": 0.01, "timeout": 5.0, "start_period": 0.0, "failure_threshold": 1, **values}
    )


async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def saying(data: bytes) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()
        await reader.read()

    return answer


# -- TCP


async def test_a_port_that_opens_and_closes() -> None:
    port = free_port()
    async with probing(quick(TcpProbe(port=port))) as (_, results):
        await results.until(False, "refused")
        async with serving(nothing, port=port):
            await results.until(True, f"127.0.0.1:{port} accepts connections")
        await results.until(False, "refused")


async def test_failures_of_the_start_are_not_told() -> None:
    refused, port = 0, free_port()
    async with probing(quick(TcpProbe(port=port), start_period=3600.0)) as (probe, results):
        question = probe._question  # type: ignore[attr-defined]

        async def counted() -> str:
            nonlocal refused
            try:
                return await question()
            except OSError:
                refused += 1
                raise

        probe._question = counted  # type: ignore[attr-defined]
        await eventually(lambda: refused > 3)
        assert results == []
        async with serving(nothing, port=port):
            await results.until(True)
        assert len(results) == 1
        await results.until(False)  # it was well before


# -- HTTP


@pytest.mark.parametrize(
    ("answer", "ok", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", True, "answers with status 200"),
        (b"HTTP/1.0 204\r\n\r\n", True, "204"),
        (b"HTTP/1.1 399 \xff\xfe\r\n\r\n", True, "399"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", True, "200"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", False, "answers with status 404"),
        (b"HTTP/1.1 503 No\r\n\r\n", False, "503"),
        (b"HTTP/2 200 OK\r\n\r\n", False, "what answers is not HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", False, "what answers is not HTTP"),
        (b"HTTP/1.1 100 Continue\r\n" + b"X: y\r\n" * 9999, False, "what answers is not HTTP"),
        (b"x" * 100_000, False, "what answers is not HTTP"),
        (b"\r\n", False, "what answers is not HTTP"),
    ],
)
async def test_answers(answer: bytes, ok: bool, words: str) -> None:
    async with (
        serving(saying(answer)) as port,
        probing(quick(HttpProbe(url=f"http://127.0.0.1:{port}/"))) as (_, results),
    ):
        assert len(await results.until(ok, words)) < 100


async def test_what_is_asked() -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await reader.read()

    async with serving(answer) as port:
        async with probing(quick(HttpProbe(url=f"http://127.0.0.1:{port}/gesund/ä?a=1&b=%20"))) as (_, results):
            await results.until(True)
        assert asked[0].split(b"\r\n") == [
            b"GET /gesund/%C3%A4?a=1&b=%20 HTTP/1.1",
            b"Host: 127.0.0.1:%d" % port,
            b"User-Agent: tars-supervisor",
            b"Accept: */*",
            b"Connection: close",
            b"",
            b"",
        ]


async def test_no_answer_and_half_an_answer() -> None:
    async with serving(saying(b"HTTP/1.1 2")) as port:
        spec = quick(HttpProbe(url=f"http://127.0.0.1:{port}"), timeout=0.05)
        async with probing(spec) as (_, results):
            await results.until(False, "no answer within 0.05 s")

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with serving(hang_up) as port, probing(quick(HttpProbe(url=f"http://127.0.0.1:{port}"))) as (_, results):
        await results.until(False, "closed before there was an answer")


async def test_a_probe_that_is_stopped_while_it_asks() -> None:
    asked = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()

    async with serving(answer) as port, probing(quick(HttpProbe(url=f"http://127.0.0.1:{port}"))) as (_, results):
        async with asyncio.timeout(30):
            await asked.wait()
    assert results == []


async def test_https_asks_whoever_is_there(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody else")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "both.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    async with serving(saying(b"HTTP/1.1 200 OK\r\n\r\n"), ssl=context) as port:
        async with probing(quick(HttpProbe(url=f"https://127.0.0.1:{port}/"))) as (_, results):
            await results.until(True, "200")
        async with probing(quick(HttpProbe(url=f"http://127.0.0.1:{port}/"))) as (_, results):
            await results.until(False)


# -- a command


def command(argv: tuple[str, ...]) -> Command:
    return Command(argv, Path("/"), {"PATH": os.environ["PATH"]})


def shell(text: str, **values: Any) -> Any:
    return quick(ExecProbe(command=("/bin/sh", "-c", text)), **values)


@pytest.mark.parametrize(
    ("text", "ok", "said"),
    [
        ("echo first; echo all well; echo", True, "all well"),
        ("true", True, "/bin/sh exited with 0"),
        ("echo no disk >&2; exit 3", False, "/bin/sh exited with 3: no disk"),
        ("kill -9 $$", False, "/bin/sh was killed by SIGKILL"),
        ("yes | head -c 3000000; exit 1", False, "/bin/sh exited with 1: y"),
        ("printf '\\377\\n'; exit 1", False, "/bin/sh exited with 1: \ufffd"),
    ],
)
async def test_commands(text: str, ok: bool, said: str) -> None:
    async with probing(shell(text, interval=3600.0), command) as (_, results):
        assert await results.until(ok) == said


async def test_a_command_that_is_not_there() -> None:
    async with probing(quick(ExecProbe(command=("/no/such",))), command) as (_, results):
        await results.until(False, "there is no program /no/such")


async def test_a_probe_that_cannot_be_made_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    def broken(argv: tuple[str, ...]) -> Command:
        raise RuntimeError("nobody thought of that")

    async with probing(quick(ExecProbe(command=("x",))), broken) as (_, results):
        await results.until(False, "the probe itself failed; see the log")
    assert "nobody thought of that" in caplog.text


@pytest.mark.parametrize("how", ["timeout", "stop"])
async def test_a_command_that_hangs_ends_with_all_that_it_started(tmp_path: Path, how: str) -> None:
    pids = tmp_path / "pids"
    code = (
        "import os, signal, time\n"
        "signal.signal(15, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        f"if child: open('{pids}.new', 'w').write(f'{{os.getpid()}} {{child}}'); os.rename('{pids}.new', '{pids}')\n"
        "time.sleep(600)\n"
    )
    spec = quick(
        ExecProbe(command=(sys.executable, "-I", "-S", "-c", code)),
        timeout=2.0 if how == "timeout" else 3600.0,
        interval=3600.0,
    )
    async with probing(spec, command) as (_, results):
        await eventually(pids.exists)
        if how == "timeout":
            await results.until(False, "no answer within 2 s")
            assert not any(psutil.pid_exists(int(pid)) for pid in pids.read_text().split()[:1])
    leader, child = map(int, pids.read_text().split())
    assert not psutil.pid_exists(leader)
    # Its parent is gone, so init is to reap it.
    await eventually(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
