"""The HTTP API: parses what strangers send, in a cell of its own, and holds nothing but open connections."""
