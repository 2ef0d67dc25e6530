"""What workers import: typed configuration from signed updates, and the wire format."""

__version__ = "0.1.0"
