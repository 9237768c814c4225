"""Connected-side fetchers: the only code that may reach a network, imported by bundling alone."""
