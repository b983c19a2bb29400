"""The demonstration: a card is booted, computes, is found warm, and survives a fault. Needs no hardware."""
