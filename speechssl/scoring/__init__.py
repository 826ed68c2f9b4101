"""Word and character error rates with intervals, comparisons, and how far confidences can be trusted."""
