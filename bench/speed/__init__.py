"""Our training step against the plain loop."""
