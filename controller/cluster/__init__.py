"""One cluster under one term: its snapshots, the attempts tracked on it, orphans, probes, and how fast and how much.

It decides nothing about services: it sees, remembers and rations what `decide` is told. It imports no adapter of the
cluster (controller.slurm, controller.rundir): what it needs of them are the protocols of controller.ports.
"""
