"""The network from features to frames: front end, context network, masks, and kernels that make it fast."""
