"""A request's way from received to certified: intake, coordinator, and the steps of a batch."""
