"""Models from and to other libraries, each conversion compared on audio."""
