"""Learning an encoder without labels: the pretext tasks, and the run that trains one."""
