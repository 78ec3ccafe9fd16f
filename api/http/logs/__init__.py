"""The logs of services' jobs: their ends as they are, and followed as they grow."""
