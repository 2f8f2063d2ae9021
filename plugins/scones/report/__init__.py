"""The monitoring report for people: one page of HTML without a single request to anywhere, and the alarm's words."""
