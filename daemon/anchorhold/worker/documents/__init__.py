"""Text out of files. One module per family; which of them may be used is settled before the seal.

A reader takes the bytes of one file and returns its whole text, or raises Skip with the reason: a document is
read as a whole or not at all, never in a part that nobody was told about.
"""
