"""Learning on Avalanche: streams, the training step, evaluation."""
