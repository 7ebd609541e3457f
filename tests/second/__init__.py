"""A second opinion on the log: a verifier written from docs/audit-log.md and the standards it names, alone.

Constraint: it imports nothing of anchorhold and nothing outside of Python's standard library. Where it
disagrees with `anchorhold.verify`, one of the two is wrong, or the page is.
"""
