"""Approved pictures under an archive's own names, with the records that its systems read."""
