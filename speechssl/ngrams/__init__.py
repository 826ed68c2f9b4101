"""Making n-gram language models: counting, smoothing, mixing, pruning, writing ARPA files."""
