"""The command line: a REST client (httpx); `up` starts the programs as child processes.

A folder is a noun: its `grammar` says what may be typed, and its other modules carry that out. The law: it imports of
this project `api.contract`, `controller.commands` and `controller.slurm`. A command's module is imported when the
command is used: `--help` stays quick.
"""
