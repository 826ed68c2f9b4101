"""What several tests share: data that they make for themselves, small settings, commands."""
