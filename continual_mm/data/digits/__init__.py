"""A small real dataset: handwritten digits, each of four modalities a quarter of the pixels."""
