"""Estimates of seconds: tables that were measured on classes of machines, and what they say of a call."""
