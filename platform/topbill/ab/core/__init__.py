"""From rows to arms, from arms to effects: what every comparison is made of."""
