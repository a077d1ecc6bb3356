"""Applications as a user would write them."""
