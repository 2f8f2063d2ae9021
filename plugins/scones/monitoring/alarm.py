"""The words of an alarm: what happened, how bad, what to do, where to look."""

from __future__ import annotations

from scones.monitoring.document import Report

#: SNS takes at most 100 ASCII characters as a subject, without control characters.
_SUBJECT = 100


def alarm_message(report: Report, report_url: str) -> tuple[str, str]:
    """Subject and text of the alarm of a report, for a mail or a chat."""
    count = len(report["violations"])
    names = sorted({entry["feature_name"] for entry in report["violations"]})
    subject = f"[Scones] {report['endpoint_name']}: {count} violation{'s' if count != 1 else ''} ({', '.join(names)})"
    subject = subject.encode("ascii", "replace").decode("ascii")
    subject = "".join(character for character in subject if character.isprintable())
    if len(subject) > _SUBJECT:
        subject = subject[: _SUBJECT - 3] + "..."
    rate = report["rejection_rate"]
    lines = [
        report["headline"],
        "",
        f"Endpoint:  {report['endpoint_name']}",
        f"Window:    {report['window']['since']} to {report['window']['until']}",
        f"Records:   {report['captured_records']}" + (f", {rate:.1%} rejected" if rate is not None else ""),
        f"Model:     {report['lineage']['training_job'] or 'unknown'}",
        "",
        "Violations:",
        *(f"  - {entry['feature_name']}: {entry['description']}" for entry in report["violations"][:20]),
    ]
    if count > 20:
        lines.append(f"  ... and {count - 20} more")
    lines += ["", "What to do:", *(f"  - {step}" for step in report["next_steps"]), "", f"Report: {report_url}"]
    return subject, "\n".join(lines)
