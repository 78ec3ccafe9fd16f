"""The API side of AI Factory Server. It owns the types that all programs agree on (`api.contract`).

The law: `controller -> api.contract <- api.web <- api.http`, `api.contract <- api.cli`, and nothing else crosses.
"""
