"""Starting a card: what was found decides the plan, and one executor carries it out."""
