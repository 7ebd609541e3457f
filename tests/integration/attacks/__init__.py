"""Attacks on the cell, by category: each runs outside first, where it must succeed, then in a sealed cell."""
