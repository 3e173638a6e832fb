"""The audit: rules that try to show that a robustness figure is wrong."""

from __future__ import annotations

from textadv.audit.finding import AuditReport, Finding, NotSupportedError, Outcome, Verdict
from textadv.audit.rules import RULES, Rule, audit
from textadv.audit.store import check_data, save_audit, with_audit
from textadv.audit.subject import QUICK, AuditConfig, Subject
from textadv.audit.subjects import subject_of_model, subject_of_run

__all__ = [
    "QUICK",
    "RULES",
    "AuditConfig",
    "AuditReport",
    "Finding",
    "NotSupportedError",
    "Outcome",
    "Rule",
    "Subject",
    "Verdict",
    "audit",
    "check_data",
    "save_audit",
    "subject_of_model",
    "subject_of_run",
    "with_audit",
]
