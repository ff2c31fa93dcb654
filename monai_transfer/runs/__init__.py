"""Run folders seen from outside, without torch: their record and status, who writes in them, the list of them."""
