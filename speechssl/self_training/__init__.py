"""A recogniser that learns from its own transcripts of audio without labels."""
