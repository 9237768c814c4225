"""Every side effect edgekit has, one module per door: files, processes, clock, probes, media."""
