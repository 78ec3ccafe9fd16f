"""The API side of AI Factory Server. It owns the types that all programs agree on (`api.contract`).

The law: `controller -> api.contract <- api.web <- api.http`, and nothing else crosses. The command line, `api.cli`,
stands above all, and knows of the controller its commands and its Slurm library.
"""
