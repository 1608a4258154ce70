"""Slots, records and months of requests."""
