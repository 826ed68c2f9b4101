"""The network from features to frames: front end, context network, masks, and fast kernels."""
