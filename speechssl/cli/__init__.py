"""The speechssl command: arguments, printing and exit codes."""
