"""A build over workers, measured on this machine's cores, and a simulation of many GPU workers on many records."""
