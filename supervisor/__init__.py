"""The process: entry point, command line, settings, wiring, logging, signals.

May import every other room; no other room imports this one.
"""

__version__ = "0.1.0"
