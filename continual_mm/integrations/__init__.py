"""The joint space in other libraries."""
