"""The door before an engine: a process of its own that opens to the installation's clients, and passes bytes on."""
