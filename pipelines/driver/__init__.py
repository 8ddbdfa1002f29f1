"""Runs a job: hands rows to workers and sees that each gets one result. The only room that imports Ray."""
