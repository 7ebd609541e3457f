"""Run a local language model in a cell: it sees only the files it is handed, and each one is on record."""

__version__ = "0.1.0"
