"""Attacks on the cell, by category; each is run outside first, where it must succeed, then in a sealed worker."""
