"""What the solve of the global head costs."""
