"""Slurm through its own commands: pure command lines and parsers around one runner."""
