"""Engine adapters: how to make an engine pack, and how to launch it on a host."""
