"""Programs that are frozen into engine packs; edgekit itself never imports them."""
