"""Estimates: tables of seconds measured on classes of machines, and the seconds that they predict for a call."""
