"""What the controller tells of itself: plans with their inputs, metrics, health. Nothing here decides or acts."""
