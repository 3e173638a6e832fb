"""The audit: rules that try to show that a robustness figure is wrong."""

from __future__ import annotations

from textadv.audit.finding import AuditReport, Finding, Outcome, Verdict
from textadv.audit.rules import RULES, Rule, audit
from textadv.audit.subject import QUICK, AuditConfig, Subject
from textadv.audit.subjects import subject_of_model, subject_of_run, with_audit

__all__ = [
    "QUICK",
    "RULES",
    "AuditConfig",
    "AuditReport",
    "Finding",
    "Outcome",
    "Rule",
    "Subject",
    "Verdict",
    "audit",
    "subject_of_model",
    "subject_of_run",
    "with_audit",
]
