from tests.brokers import any_broker, any_broker_with

__all__ = ["any_broker", "any_broker_with"]
