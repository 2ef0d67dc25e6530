"""Who does things: one mailbox each.

May import `schemas` and `tars_config`. What is exported here is all that `api` sees.
"""
