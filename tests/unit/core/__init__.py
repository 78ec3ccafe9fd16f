"""What decide decides."""
