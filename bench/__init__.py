"""Figures against floors and peers: `python -m bench` prints one table, see README.md.

May import every room and the tests' helpers; nothing imports it but tests.
"""
