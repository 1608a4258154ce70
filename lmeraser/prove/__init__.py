"""Evidence: what changed, whether a rebuild gives the same, and the receipt that says so. Without torch."""
