"""edgekit: signed offline sets of local language models, and the appliance they install."""

__version__ = "0.1.0"
