"""Sending whatever comes to mind through the door, and looking what comes back."""
