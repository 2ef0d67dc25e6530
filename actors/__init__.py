"""Who does things: one mailbox each.

May import `schemas` and `tars_config`.
"""
