"""The command line: a REST client (httpx); `up` starts the programs as child processes.

It imports of this project only `api.contract`. What needs the controller's code runs as a child,
`python -m controller …`. A command's module is imported when the command is used: `--help` stays quick.
"""
