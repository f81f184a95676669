"""A small real dataset: handwritten digits, their pixels dealt out to four modalities."""
