"""`ai-factory doctor`: what must be true for services to run here, checked one by one, each failure with a remedy."""
