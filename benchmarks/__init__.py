"""Measurements next to what a courier would use instead; see README.md."""
