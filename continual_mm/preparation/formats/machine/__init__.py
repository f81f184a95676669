"""A machine for pickles of others."""
