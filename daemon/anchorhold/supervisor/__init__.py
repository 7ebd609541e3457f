"""The trusted side: starts workers, answers them, keeps the record, holds the limits, kills."""
