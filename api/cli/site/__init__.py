"""Commands about the site: its settings, and its state kept safe."""
