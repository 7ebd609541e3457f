"""The framed message protocol between supervisor, worker and gateway. Strict and length-limited."""
