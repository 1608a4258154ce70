"""What serving costs, and how soon an erasure is in its answers."""
