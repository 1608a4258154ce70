"""What every stage and command shares: params, layout, digests, errors, and whole files. Without torch."""
