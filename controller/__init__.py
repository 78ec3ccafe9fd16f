"""The controller: continually makes the cluster match what the database says is wanted.

A pass over one service is five verbs, each in a file of its own: observe, decide, record, act, report.
"""
