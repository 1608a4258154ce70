"""Who tunes which slot: features as integers, the permanent hierarchy and its cut, and the exact global head."""
