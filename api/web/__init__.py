"""What several HTTP programs share (Litestar): who asks, refusals, request ids, streams, listening, talking to engines.

The law: it imports `api.contract` and nothing else of ours, and of that neither tables nor recipes: what it knows is
the same whichever resources a program serves. The control plane (`api.http`) stands on it, as a gateway will.
"""
