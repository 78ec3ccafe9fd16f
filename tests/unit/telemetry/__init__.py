"""What the controller tells of itself."""
