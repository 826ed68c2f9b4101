"""Which recordings there are, who speaks, what is said, and which split each belongs to."""
