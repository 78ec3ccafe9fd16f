"""What makes passes happen: the keyed queue, the manager, the timers."""
