"""What `protojobs dev` needs: a worker that starts anew when the code changes, and the dashboard."""
