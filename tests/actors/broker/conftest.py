from tests.brokers import any_broker, any_shared_broker, embedded_broker, shared_broker

__all__ = ["any_broker", "any_shared_broker", "embedded_broker", "shared_broker"]
