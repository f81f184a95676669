"""A space -> scores."""
