"""Pronunciation lexicons: made with espeak-ng, extended by a trained model, and checked."""
