"""Containers of audio: their bytes are checked before anything is decoded."""
