"""Commands that run the programs of this host, and bring their database up to date."""
