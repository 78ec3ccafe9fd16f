"""What makes passes happen: a held term, the reader of its cluster, the workers, what wakes services, timers."""
