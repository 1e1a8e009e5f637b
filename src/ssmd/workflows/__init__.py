"""Trading days and their duties as Temporal workflows: the one home of temporalio.

Workflows decide only in which order and how patiently things are done; what is done is `work.Work`, which the wiring
gives, and which does the same without Temporal.
"""
