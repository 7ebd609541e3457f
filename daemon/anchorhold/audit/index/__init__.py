"""The index: what makes a question to a log of a million entries an answer in a fifth of a second.

Constraint: never needed and never trusted. It is one SQLite file beside the log, ``<state>/index.sqlite``,
made from the log and thrown away at will; where it is not there, not whole or cannot be written, the log is
read instead, with the same answers (`find`). The verifier does not know of it.
"""
