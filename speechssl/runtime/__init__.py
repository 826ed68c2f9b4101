"""The machine under a run: device, seeds, log lines, processes, several machines."""
