"""Word and character error rates, their intervals and differences, and the trust in confidences."""
