"""What people are shown, gathered: git's history, metrics, the ledger and the certificates as facts of `lmeraser/report`."""
