"""PURE: what is seen in, what to do out. No clock, no I/O, no randomness, no logging; import-linter holds it."""
