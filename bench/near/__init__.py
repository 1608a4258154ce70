"""Whether near copies are found."""
