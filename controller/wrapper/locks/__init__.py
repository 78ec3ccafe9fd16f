"""Who may run: the claim of the attempt, the slot of its replica, the volumes; all made by link(2)."""
