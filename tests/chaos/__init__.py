"""Faults of many kinds at a real service, by a seed, and what must hold after them."""
