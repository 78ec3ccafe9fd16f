"""What all programs agree on: settings, recipes, tables, transactions, the change feed. No Litestar, no HTTP."""
