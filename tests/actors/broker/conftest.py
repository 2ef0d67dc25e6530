from tests.brokers import any_broker, embedded_broker

__all__ = ["any_broker", "embedded_broker"]
