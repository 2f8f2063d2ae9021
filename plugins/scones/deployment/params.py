"""The form of `cleanup`, as data."""

from __future__ import annotations

from scones.defaults import OPEN_SECTION, Form

DAYS = {"type": "number", "minimum": 0, "maximum": 36_500}

# fmt: off
CLEANUP_FORM: Form = {
    OPEN_SECTION: [
        ("dry_run", True, {"type": "boolean"}, "Only show", "Print the table and delete nothing."),
        ("older_than_days", 7, DAYS, "Unused for (days)",
         "Endpoints without requests, and configs and models, that are older than this."),
        ("objects_older_than_days", 30, DAYS, "Objects older than (days)",
         "Training outputs that no model or registered version needs, and captures by day."),
        ("end_production", "", {"type": ["null", "string"], "maxLength": 63}, "End the production endpoint",
         "Type the production endpoint's name to delete it too, whatever its age and traffic: nothing answers then "
         "until the next deployment. Empty: it stays."),
    ],
}
# fmt: on
