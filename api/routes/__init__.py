"""The calls, by subject. Each module has `routes(state)`; a handler takes, asks and returns.

Imported by `api.app` alone.
"""
