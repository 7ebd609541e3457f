"""What a worker may have: the schema, strict loading, and matching of paths (docs/policy.md)."""
