"""The audit log's writing side: entries, Merkle tree, checkpoints, keys, query.

``verify/`` reads the same bytes and shares no code with this package, so that a mistake here cannot hide
itself there.
"""
