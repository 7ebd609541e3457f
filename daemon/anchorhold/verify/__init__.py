"""The independent verifier: reads a log from disk and says whether it can be believed.

Constraint: imports nothing else of anchorhold, so that a mistake of the writer is not repeated here, and an
auditor can run it on a copy of the log: ``python -m anchorhold.verify DIR``. It needs ``cryptography`` for
the Ed25519 signature, and nothing else outside the standard library. It writes nothing.
"""
