"""Measures against the bars of the project, with the peers that are installed. ``make bench`` runs it."""
