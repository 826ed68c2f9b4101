"""Recordings of any length to text, subtitles and tables."""
