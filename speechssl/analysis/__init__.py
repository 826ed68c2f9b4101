"""What an encoder knows, and how fast everything is here."""
