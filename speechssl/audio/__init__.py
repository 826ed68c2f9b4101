"""From the bytes of a recording to samples, speech between silences, and features."""
