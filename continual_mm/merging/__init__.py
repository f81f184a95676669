"""Two spaces that were trained apart become one: maps, tied units, fused encoders."""
