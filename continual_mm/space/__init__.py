"""The joint embedding space: encoders by kind of signal, heads that grow, centroids."""
