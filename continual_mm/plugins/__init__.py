"""One way of not forgetting per file."""
