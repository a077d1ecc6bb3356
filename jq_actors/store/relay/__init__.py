"""What relays do with rows: publish them, give back those of lost workers, delete old ones."""
