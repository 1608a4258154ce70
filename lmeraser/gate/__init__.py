"""The gate before training: expectations, and the checks that are made of them."""
