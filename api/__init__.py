"""Litestar: take, ask, return. No rule of the domain lives here.

May import `schemas`, and of `actors` only what its `__init__` exports.
"""
