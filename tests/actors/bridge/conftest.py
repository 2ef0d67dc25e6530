from tests.brokers import any_broker

__all__ = ["any_broker"]
