"""Pure values and decisions: no files, no processes, no network, no clock."""
