"""What commands that act on jobs share: select the jobs, ask before acting, act on many at once."""
