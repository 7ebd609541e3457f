"""Many clients at a real service for minutes: does it stay right, flat and fair?"""
