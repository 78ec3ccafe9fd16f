"""Where the engine runs and what it is given: command line, environment, a folder of its own."""
