"""What all programs agree on: settings, recipes, tables, transactions, the change feed, how engines are asked.

No Litestar, and nothing is served.
"""
