"""The brokers, and the marker of tests that show what stock amqtt does wrong."""

import os

import pytest

from tests.brokers import any_broker, any_broker_with, any_shared_broker, embedded_broker, shared_broker

__all__ = ["any_broker", "any_broker_with", "any_shared_broker", "embedded_broker", "shared_broker"]

STOCK = os.environ.get("TEST_BROKERS") == "stock"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "fault(stock): a fault of amqtt 0.12.1; under TEST_BROKERS=stock the test must fail there, as `stock` says, "
        "or pass where that is empty",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if STOCK and (fault := item.get_closest_marker("fault")) and fault.kwargs["stock"]:
            item.add_marker(pytest.mark.xfail(reason=fault.kwargs["stock"], strict=True))
