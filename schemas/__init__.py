"""What things are: closed, frozen Pydantic models; no input or output.

May import `tars_config`.
"""
