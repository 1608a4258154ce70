"""Ours and its peers on the same ground."""
