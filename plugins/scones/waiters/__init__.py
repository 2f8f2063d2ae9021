"""Which states end a wait, and how often to look. Data, not code."""
