"""For curators: the report, reviews, recolouring, verification, export and evaluation of finished rows."""
