"""The real passes, driven one I/O boundary at a time in virtual time against a simulated cluster."""
