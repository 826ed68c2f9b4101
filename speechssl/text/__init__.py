"""Transcripts: normalised, and as tokens."""
