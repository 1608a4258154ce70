"""After an erasure no copy stays: what goes, the deletes, what they leave, and the scan."""
