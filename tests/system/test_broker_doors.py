"""Further listeners of the embedded broker, as the environment asks for them."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.actors.bridge.certificates import certificates
from tests.support import free_port, needs
from tests.system.program import Program, config_only_manifest

Make = Callable[..., Program]
ONE = config_only_manifest(1)


def sees(program: Program, port: int, *more: str, password: str = "") -> "subprocess.CompletedProcess[bytes]":
    broker = program.broker
    who = ("-u", broker.user or "", "-P", password or broker.password or "")
    what = ("-t", "system/config/+", "-C", "1", "-W", "25", "-q", "1")
    return subprocess.run(
        [needs("mosquitto_sub"), "-h", "127.0.0.1", "-p", str(port), *who, *what, *more],
        capture_output=True,
        timeout=30,
        check=False,
    )


def test_a_tls_listener_shows_what_the_first_one_shows_and_asks_for_the_same_login(
    program: Make, tmp_path: Path
) -> None:
    certificate, key = certificates(tmp_path)
    port = free_port()
    supervised = program(
        ONE,
        MQTT_LISTENERS=f"mqtts://127.0.0.1:{port}",
        MQTT_TLS_CERTIFICATE=str(certificate),
        MQTT_TLS_KEY=str(key),
    ).start()
    trust = ("--cafile", str(certificate))
    assert b'"signature"' in sees(supervised, port, *trust).stdout
    assert b'"signature"' in sees(supervised, supervised.broker.port).stdout
    assert sees(supervised, port, *trust, password="wrong").returncode != 0
    assert sees(supervised, port, "-W", "1").stdout == b""
    assert supervised.stop() == 0


def test_a_certificate_that_is_not_there_refuses_the_start(program: Make) -> None:
    supervised = program(
        ONE,
        MQTT_LISTENERS=f"wss://127.0.0.1:{free_port()}",
        MQTT_TLS_CERTIFICATE="gone.pem",
        MQTT_TLS_KEY="gone.key",
    )
    supervised.launch()
    assert supervised.wait() == 2
    assert "gone.pem" in supervised.stderr
    assert "mend MQTT_LISTENERS, MQTT_TLS_CERTIFICATE or MQTT_TLS_KEY" in supervised.stderr
    assert "Traceback" not in supervised.stderr
