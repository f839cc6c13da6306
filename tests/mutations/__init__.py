"""Formulas broken on purpose: the self-test must go red for each of them."""
