"""Colorized pictures compared with their true colours, in figures."""
