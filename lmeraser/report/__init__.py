"""What people are shown: a review of two states, and the report page. Pure: facts in, text and bytes out."""
