"""The data plane: one OpenAI-compatible address in front of every model.

A request names a model; the routing table, kept in memory from the change feed, says which replicas serve it; one of
them is asked through its job's door, and its answer passes as it comes. Nothing on that path asks the database.
"""
