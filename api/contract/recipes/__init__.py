"""Recipes: read from YAML, checked with messages that name file, line and key, and resolved with a service's config."""
