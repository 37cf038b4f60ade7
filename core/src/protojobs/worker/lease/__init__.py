"""The right to hold claims: keep it, judge it, and take back the jobs of the dead."""
