"""The engine's logs: read as they grow, turned over when they are too long, searched for what tells something."""
