"""One source of host facts per module; each reads through a view and so replays recorded hosts."""
