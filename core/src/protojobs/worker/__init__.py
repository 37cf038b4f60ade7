"""Work jobs: claim, run, settle. One loop decides; threads around it run the jobs and keep the lease."""
