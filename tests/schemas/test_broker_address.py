"""The broker's URL: every form of the contract, and errors that never tell the password."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.broker_address import BrokerAddress, parse_mqtt_url

SECRET = "hunter2secret"  # made up


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("mqtt://broker", BrokerAddress("broker", 1883)),
        ("mqtt://broker/", BrokerAddress("broker", 1883)),
        ("MQTT://Broker.LAN:1884", BrokerAddress("broker.lan", 1884)),
        ("mqtts://broker", BrokerAddress("broker", 8883, tls=True)),
        ("mqtt://user:pass@10.0.0.1:99", BrokerAddress("10.0.0.1", 99, "user", "pass")),
        ("mqtt://user@broker", BrokerAddress("broker", 1883, "user")),
        ("mqtt://us%40er:p%2Fa%3Ass%23@broker", BrokerAddress("broker", 1883, "us@er", "p/a:ss#")),
        ("mqtts://[::1]:8884", BrokerAddress("::1", 8884, tls=True)),
    ],
)
def test_forms(text, address):
    assert parse_mqtt_url(text) == address


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no scheme"),
        ("broker:1883", "no scheme"),
        (f"//user:{SECRET}@broker", "no scheme"),
        (f"http://user:{SECRET}@broker", "scheme 'http'"),
        ("embedded://127.0.0.1:0", "scheme 'embedded'"),
        ("mqtt://", "names no host"),
        (f"mqtt://user:{SECRET}@", "names no host"),
        (f"mqtt://user:{SECRET}@broker:0", "port 0"),
        (f"mqtt://user:{SECRET}@broker:65536", "cannot be read"),
        (f"mqtt://user:{SECRET}@broker:http", "cannot be read"),
        (f"mqtt://user:{SECRET}#1@broker", "cannot be read|goes on after the port"),
        (f"mqtt://user:{SECRET}/1@broker", "cannot be read|goes on after the port"),
        (f"mqtt://user:{SECRET}@[::1", "cannot be read"),
        (f"mqtt://user:{SECRET}@broker/topic", "goes on after the port"),
        (f"mqtt://user:{SECRET}@broker?x=1", "goes on after the port"),
        (f"mqtt://:{SECRET}@broker", "without a user name"),
        (f"mqtt://user:{SECRET}%ff@broker", "not as UTF-8"),
        (f"mqtt://user:{SECRET}%00@broker", "NUL"),
        (f"mqtt://user:{SECRET}@bro\nker", "white space"),
        (f"mqtt://user:{SECRET}@broker/{'x' * 3000}", "longer than"),
    ],
)
def test_errors_say_what_is_wrong_and_no_secret(text, says):
    with pytest.raises(ValueError, match=says) as caught:
        parse_mqtt_url(text)
    assert SECRET not in str(caught.value)
    # A cause would be printed along with it.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_the_password_is_not_shown():
    address = parse_mqtt_url(f"mqtts://user:{SECRET}@broker")
    assert address.password == SECRET
    assert SECRET not in f"{address} {address!r}"
    assert str(address) == "mqtts://broker:8883"
    assert str(parse_mqtt_url("mqtt://[::1]")) == "mqtt://[::1]:1883"


@given(
    st.text()
    | st.builds("mqtt://{}".format, st.text())
    | st.builds("mqtts://{}:{}@h:{}".format, st.text(), st.text(), st.text())
)
def test_any_text_gives_an_address_or_a_value_error(text):
    try:
        address = parse_mqtt_url(text)
    except ValueError:
        return
    assert address.host
    assert 1 <= address.port <= 65535
