"""Pickles of strangers: read by a machine of our own, which can call nothing but what is here."""
