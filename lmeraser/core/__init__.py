"""What every stage and command shares: records, params, digests, the hierarchy and exact sums. Without torch."""
