"""Pictures of point clouds: tensors in, tensors out."""
