"""What scenarios, strategies and datasets may say; no torch, no numpy."""
