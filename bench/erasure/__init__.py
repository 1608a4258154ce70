"""What an erasure costs from request to certificate."""
