"""A generated dataset of solids: shaded pictures, captions, and depth maps of point clouds."""
