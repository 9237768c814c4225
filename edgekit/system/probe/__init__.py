"""One source of host facts per module; each reads below a root directory and so replays."""
