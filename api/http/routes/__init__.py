"""The routes: each module makes the handlers of one group out of what they need."""
