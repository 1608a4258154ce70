"""Stores that keep copies: folders and buckets, listed, read and deleted from. Thin: what goes is decided in `erase`."""
