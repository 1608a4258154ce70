"""What proofs of absence cost."""
