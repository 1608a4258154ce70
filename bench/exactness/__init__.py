"""Many people erased in several ways, every artifact compared."""
